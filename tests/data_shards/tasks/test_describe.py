"""The summary of a task's data: what `stillhouse task data` prints."""

from transformers import AutoTokenizer

from data_shards.tasks.describe import describe
from data_shards.tasks.encoding.encode import encode


def test_rows_labels_lengths_and_findings(read, write, wordpiece):
    path = write("t.csv", "text,label\n" + "".join(f"{'oak ' * n},{'xyx'[n % 3]}\n" for n in range(1, 31)) + "oak ,x\n")
    data = read(kind="classification", train=path, max_length=20)
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    summary = describe(data, {"train": encode(data.splits["train"], tokenizer, data.settings, data.labels)})
    (train,) = summary.splits
    assert (train.rows, train.labels, train.majority) == (31, {"x": 21, "y": 10}, 21 / 31)
    per_word = len(tokenizer("oak")["input_ids"])
    assert train.lengths[100] == 20
    assert train.lengths[50] == min(20, 15 * per_word)
    cut = sum(n * per_word > 20 for n in range(1, 31))
    assert f"train: rows cut at max_length: {cut} of 31" in summary.lines


def test_targets_and_answers(read, write):
    summary = describe(read(kind="regression", train=write("t.csv", "text,label\na,1\nb,3\nc,5\n")))
    assert summary.splits[0].targets == (1.0, 3.0, 5.0)
    row = '{"question": "q%d", "context": "Ada", "answers": %s}\n'
    path = write("t.jsonl", row % (1, '[{"text": "Ada", "answer_start": 0}]') + row % (2, "[]"))
    assert describe(read(kind="question_answering", train=path)).splits[0].labels == {"answer": 1, "no answer": 1}
