"""Small files in the form of each published task's official ones, on invented words."""

import json
import random
from pathlib import Path

from school import SYLLABLES

HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mnli": "index\tpairID\tsentence1\tsentence2\tgold_label",
    "qnli": "index\tquestion\tsentence\tlabel",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}
LABELS = {
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
}


def make_official(folder: Path, name: str, rows: int = 24, seed: int = 3) -> Path:
    """The folder of the preset with this configuration's name. Train and dev have so many rows each."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)

    def text() -> str:
        return " ".join(draw.choice(SYLLABLES) for _ in range(draw.randint(4, 12)))

    if name == "imdb":
        for part in ("train/neg", "train/pos", "train/unsup", "test/neg", "test/pos"):
            (folder / part).mkdir(parents=True)
            for number in range(rows):
                (folder / part / f"{number}_1.txt").write_text(f"{text()}<br /><br />{text()}")
    elif name == "conll2003":
        for split in ("eng.train", "eng.testa", "eng.testb"):
            blocks = ["-DOCSTART- -X- O O\n"]
            for _ in range(rows):
                tags = draw.choices(("O", "B-PER", "B-LOC", "B-ORG", "B-MISC"), k=6)
                blocks.append("".join(f"{draw.choice(SYLLABLES)} NN B-NP {tag}\n" for tag in tags))
            (folder / split).write_text("\n".join(blocks))
    elif name in ("squad", "squad_v2"):
        version = {"squad": "v1.1", "squad_v2": "v2.0"}[name]
        for split in ("train", "dev"):
            data = {"version": version, "data": [{"title": "words", "paragraphs": [_paragraph(draw, name, n) for n in range(rows)]}]}
            (folder / f"{split}-{version}.json").write_text(json.dumps(data))
    else:
        for split in ("train", "dev"):
            lines = [HEADERS[name]] if name in HEADERS else []
            lines += [_line(draw, name, number, text) for number in range(rows)]
            file = "dev_matched" if (name, split) == ("mnli", "dev") else split
            (folder / f"{file}.tsv").write_text("\n".join(lines))
    return folder


def _line(draw: random.Random, name: str, number: int, text) -> str:  # type: ignore[no-untyped-def]
    label = LABELS.get(name, ("0", "1"))[number % len(LABELS.get(name, ("0", "1")))]
    if name == "cola":
        return f"gj04\t{label}\t{'*' if label == '0' else ''}\t{text()}"
    if name == "sst2":
        return f"{text()}\t{label}"
    if name == "mrpc":
        return f'{label}\t{number}\t{number + 1}\t"{text()}\t{text()}'
    if name == "stsb":
        return f"{number}\tgenre\tfile\t2012\t{number}\tx\ty\t{text()}\t{text()}\t{draw.uniform(0, 5):.2f}"
    if name == "qqp":
        return f"{number}\t1\t2\t{text()}\t{text()}\t{label}"
    if name == "mnli":
        return f"{number}\tp\t{text()}\t{text()}\t{label}"
    return f"{number}\t{text()}\t{text()}\t{label}"


def _paragraph(draw: random.Random, name: str, number: int) -> dict[str, object]:
    words = [draw.choice(SYLLABLES) for _ in range(40)]
    start = sum(len(word) + 1 for word in words[:7])
    without = name == "squad_v2" and number % 3 == 0
    answers = [] if without else [{"text": words[7], "answer_start": start}]
    more = {"is_impossible": without} if name == "squad_v2" else {}
    return {"context": " ".join(words), "qas": [{"id": f"{number}", "question": "ba de fi", "answers": answers, **more}]}
