"""`stillhouse predict`: one line for each text in the input's order, the same from a Hugging Face folder and from its export."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from task_files import make_task
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from data_shards.tasks.encoding.encode import pipeline
from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.prediction.answers import AnswerSettings, answer
from launcher.deployment.prediction.counted import Counted
from launcher.deployment.prediction.encode import TextEncoder, limits_of
from launcher.deployment.prediction.inputs import Text, _texts, read_texts
from launcher.deployment.prediction.predict import predictions, run
from launcher.deployment.prediction.served import _served, serve
from launcher.deployment.score import run as score
from launcher.errors import LaunchError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
LABELS = {"classification": ["long", "short"], "multi_label": ["a", "b", "c"], "tagging": ["O", "B-X"]}


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    """model(kind): a folder with a random head of this kind."""

    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        config = AutoConfig.from_pretrained(corpus.model, num_hidden_layers=1)  # a second layer takes as long to export
        set_labels(config, kind, LABELS.get(kind, []))
        with quiet_transformers():
            MODEL_CLASSES[kind].from_config(config).save_pretrained(folder)
            AutoTokenizer.from_pretrained(corpus.model).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def predict(capsys):
    def call(*words) -> list[dict]:
        assert run(parser().parse_args(["predict", *map(str, words)])) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


KEYS = {
    "classification": {"text", "label", "score"},
    "multi_label": {"text", "label", "score"},
    "regression": {"text", "score"},
    "tagging": {"words", "label", "score"},
    "question_answering": {"question", "label", "score"},
    "masked_lm": {"text", "label", "score", "fills"},
}


@pytest.mark.parametrize("kind", KEYS)
def test_an_exported_folder_gives_what_its_original_gives(corpus, model, predict, tmp_path, capsys, kind):
    folder = corpus.model if kind == "masked_lm" else model(kind)
    texts = [("[MASK] " if kind == "masked_lm" else "") + text[:100] for text in corpus.texts[:70]]
    rows = [{"question": "the miller", "context": text} if kind == "question_answering" else {"text": text} for text in texts]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    export(parser().parse_args(["export", str(folder), "--out", str(tmp_path / "out")]))
    capsys.readouterr()
    original, exported = (predict(one, tmp_path / "in.jsonl", "--batch", 4) for one in (folder, tmp_path / "out"))
    assert len(exported) == 70
    assert set(exported[0]) == KEYS[kind]
    assert [{**line, "score": 0, "fills": 0} for line in exported] == [{**line, "score": 0, "fills": 0} for line in original]
    for one, other in zip(exported, original, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=5e-6)  # six decimals are written
        for fills in zip(one.get("fills", []), other.get("fills", []), strict=True):
            scores, others = ([fill["score"] for fill in several] for several in fills)
            assert scores == pytest.approx(others, abs=5e-6)


@pytest.mark.parametrize("no_answer", [False, True])
def test_long_contexts_are_answered_as_task_score_answers_them(corpus, model, predict, tmp_path, capsys, no_answer):
    folder, task = model("question_answering"), make_task(tmp_path / "task", "question_answering")
    file = tmp_path / "task" / "dev.json"
    content = json.loads(file.read_text())
    paragraphs = content["data"][0]["paragraphs"]
    for paragraph in paragraphs[::3] if no_answer else []:
        paragraph["qas"][0] |= {"answers": [], "is_impossible": True}
    file.write_text(json.dumps(content))
    settings = [*task.settings, "data.max_length=48", "data.max_question=8"]
    train = "train: {updates: 1, global_batch: 8, micro_batch: 8}"
    (tmp_path / "task.yaml").write_text(f"run: {{folder: runs}}\ndata: {{kind: question_answering}}\nstudent: {{init: x}}\n{train}\n")
    words = ["task", "score", str(folder), "--config", str(tmp_path / "task.yaml"), "--predictions", str(tmp_path)]
    words += [word for setting in settings for word in ("--set", setting)]
    assert score(parser().parse_args(words)) == 0
    expected = [json.loads(line)["prediction"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    rows = [{"question": one["qas"][0]["question"], "context": one["context"]} for one in paragraphs]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    flags = ["--max-length", 48, "--window-overlap", 16, "--max-question", 8, *(["--no-answer"] if no_answer else [])]
    made = predict(folder, tmp_path / "in.jsonl", *flags)
    assert [line["label"] for line in made] == expected
    assert any(row["context"].find(line["label"]) > 60 for row, line in zip(rows, made, strict=True)), "answers of later windows"
    assert all(0 <= line["score"] <= 1 for line in made)


def test_no_answer_is_given_where_it_scores_higher_than_every_span(model):
    served = serve(str(model("question_answering")))
    text = Text("in:1", "the miller", "seven barrels before dawn")
    (encoding,) = TextEncoder(served, limits_of(served, None, None, None)).windows(text)
    logits = np.zeros((2, len(encoding.ids)), np.float32)
    first = encoding.sequence_ids.index(1)
    logits[:, 0], logits[:, first] = 5.0, 4.0
    share = np.exp(5.0) / (np.exp(5.0) + np.exp(4.0) + len(encoding.ids) - 2)
    line = answer(served, text, [(encoding, logits)], AnswerSettings(no_answer=True))
    assert (line["label"], line["score"]) == ("", pytest.approx(share**2, abs=1e-6))
    line = answer(served, text, [(encoding, logits)], AnswerSettings())
    assert line["label"]
    assert text.pair.startswith(line["label"])
    assert line["score"] == pytest.approx((share / np.e) ** 2, abs=1e-6)


def test_texts_that_are_cut_are_counted_and_named(corpus, model, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("the miller\n" + "the miller crosses the winter road\n" * 7)
    folder = model("classification")
    assert run(parser().parse_args(["predict", str(folder), str(tmp_path / "in.txt"), "--max-length", "8"])) == 0
    told = capsys.readouterr()
    names = ", ".join(f"{tmp_path / 'in.txt'}:{number}" for number in range(2, 7))
    assert told.err == f"stillhouse: 7 texts were cut at 8 tokens: {names} …\n"
    assert len(told.out.splitlines()) == 8
    assert run(parser().parse_args(["predict", str(folder), str(tmp_path / "in.txt")])) == 0
    assert capsys.readouterr().err == ""


def test_words_are_read_as_training_reads_them(tmp_path):
    pieces = {piece: number for number, piece in enumerate(["<unk>", "a", "b", "Ġ", "Ġa", "Ġb"])}
    backend = Tokenizer(models.BPE(pieces, [("Ġ", "a"), ("Ġ", "b")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # as RoBERTa's file has it
    loaded = PreTrainedTokenizerFast(tokenizer_object=backend)
    expected = pipeline(loaded, words=True).encode(["a", "b"], is_pretokenized=True).ids
    assert expected == [4, 5]
    served = _served("tagging", None, backend, ["O"], None, 0, (16, 6))
    assert served.tokenizer.encode(["a", "b"], is_pretokenized=True).ids == expected


def test_masks_are_filled(corpus, predict, tmp_path):
    (tmp_path / "in.txt").write_text("the [MASK] river\n\nher [MASK] [MASK]\n")
    one, two = predict(corpus.model, tmp_path / "in.txt", "--top", 3)
    assert [len(one["fills"]), len(two["fills"]), len(one["fills"][0])] == [1, 2, 3]
    assert one["label"] == one["fills"][0][0]["token"]
    scores = [fill["score"] for fill in one["fills"][0]]
    assert scores == sorted(scores, reverse=True)


def test_logits_of_masked_language_models_are_kept_at_masks_alone_in_batches_of_limited_bytes(corpus, monkeypatch):
    served = serve(str(corpus.model))
    texts = ["The [MASK] and a [MASK].", "A [MASK]."]
    encodings = [served.tokenizer.encode(text) for text in texts]
    together = served.logits(encodings)
    assert [one.shape for one in together] == [(1, 2, served.vocabulary), (1, 1, served.vocabulary)]
    lengths = [len(one.ids) for one in sorted(encodings, key=lambda one: len(one.ids))]
    assert list(served.batches(lengths, 16)) == [range(2)]
    assert list(served.batches([5, 5, 5], 2)) == [range(2), range(2, 3)]
    monkeypatch.setattr("launcher.deployment.prediction.served.OUTPUT_BYTES", 4 * served.vocabulary * lengths[1])
    assert list(served.batches(lengths, 16)) == [range(1), range(1, 2)]


def test_tags_come_by_word(model, predict, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"words": ["the", "winter", "road"]}\n{"text": "seven barrels"}\n')
    first, second = predict(model("tagging"), tmp_path / "in.jsonl")
    assert first["words"] == ["the", "winter", "road"]
    assert len(first["label"]) == len(first["score"]) == 3
    assert second["words"] == ["seven", "barrels"]


def test_answers_are_text_of_the_context(model, predict, tmp_path):
    (tmp_path / "in.csv").write_text('question,context\nthe miller,"seven barrels, before dawn"\n')
    (line,) = predict(model("question_answering"), tmp_path / "in.csv")
    assert line["label"]
    assert line["label"] in "seven barrels, before dawn"


def test_several_labels_and_a_number(model, predict, tmp_path):
    (tmp_path / "in.tsv").write_text('text\tother\nthe "miller\tseven\n')
    (several,) = predict(model("multi_label"), tmp_path / "in.tsv")
    assert set(several["label"]) <= {"a", "b", "c"}
    assert len(several["label"]) == len(several["score"])
    (number,) = predict(model("regression"), tmp_path / "in.tsv", "--pair-column", "other")
    assert set(number) == {"text", "pair", "score"}


def test_a_window_is_answered_before_the_next_is_read(corpus, model):
    served = serve(str(model("classification")))
    read = []

    def texts():
        for number in range(100):
            read.append(number)
            yield from read_texts_of("the miller")

    next(predictions(served, texts(), 2, TextEncoder(served, limits_of(served, None, None, None)), AnswerSettings()))
    assert len(read) == 2 * 16


def read_texts_of(text: str):
    return _texts(io.BytesIO(text.encode()), "x", "lines", "text", None, Counted())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', r"a\.jsonl:2: expected a text in text, got 3; columns: text"),
        ("a.jsonl", '{"text"\n', r"a\.jsonl:1: expected one JSON object a line, got .*; repair the line, or set --input-format$"),
        ("a.csv", "sentence\nx\n", r"a\.csv:1: expected a column text, got columns sentence; set --column or --pair-column"),
        ("a.csv", "text,other\nx,y,z\n", r"a\.csv:2: expected 2 fields, as the header has, got 3; quote the text of that row"),
        ("a.csv", 'text\n"x\n', r"a\.csv:2: expected CSV, got a quote that is not closed before the end of the file; repair the row$"),
        ("a.csv", "", r"a\.csv:1: expected a column text, got columns none"),
    ],
)
def test_bad_input_is_one_line_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(LaunchError, match=message):
        list(read_texts(str(tmp_path / name), name.partition(".")[2], "text", None, Counted()))


def test_empty_lines_are_counted_and_named_and_texts_may_be_compressed(model, tmp_path, capsys):
    folder = model("classification")
    (tmp_path / "in.txt").write_text("\ufeffthe miller\n\nthe  mill\r\n   \nthe wheel", encoding="utf-8")
    with gzip.open(tmp_path / "in.csv.gz", "wt") as file:
        file.write('other,text\n1,"the miller, again"\n\n2,the mill\n')
    assert run(parser().parse_args(["predict", str(folder), str(tmp_path / "in.txt")])) == 0
    output = capsys.readouterr()
    assert [json.loads(line)["text"] for line in output.out.splitlines()] == ["the miller", "the  mill", "the wheel"]
    assert f"2 lines were empty and left out: {tmp_path}/in.txt:2, {tmp_path}/in.txt:4" in output.err
    assert run(parser().parse_args(["predict", str(folder), str(tmp_path / "in.csv.gz")])) == 0
    output = capsys.readouterr()
    assert [json.loads(line)["text"] for line in output.out.splitlines()] == ["the miller, again", "the mill"]
    assert f"1 line was empty and left out: {tmp_path}/in.csv.gz:3" in output.err


def test_bytes_that_are_not_utf_8_are_one_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\ncaf\xe9\n")
    with pytest.raises(LaunchError, match=r"a\.txt, byte 8: expected UTF-8, got byte 0xe9 .*; repair the file"):
        list(read_texts(str(tmp_path / "a.txt"), "lines", "text", None, Counted()))


def test_a_text_without_a_mask_and_a_missing_file_are_one_line(corpus, predict, tmp_path):
    (tmp_path / "in.txt").write_text("the miller\n")
    with pytest.raises(LaunchError, match=r"in\.txt:1: expected \[MASK\] in the text, got none; put it where a word is missing"):
        predict(corpus.model, tmp_path / "in.txt")
    with pytest.raises(LaunchError, match=r"none\.txt: expected a file, got none; check the path"):
        predict(corpus.model, tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("classification", ["--max-length", "64"], "--max-length: expected at most 48, the model's positions, got 64; lower it"),
        (
            "classification",
            ["--no-answer"],
            "--no-answer: expected a model for question answering, got one for classification",
        ),
        ("question_answering", ["--max-length", "20", "--window-overlap", "10"], "expected at least --max-question"),
    ],
)
def test_limits_that_do_not_fit_are_one_line(model, predict, tmp_path, kind, words, message):
    (tmp_path / "in.jsonl").write_text('{"text": "x", "question": "x", "context": "y"}\n')
    with pytest.raises(LaunchError, match=message):
        predict(model(kind), tmp_path / "in.jsonl", *words)
