"""Presets read the official files as they are, and the hub's columns."""

import pytest

from data_shards.tasks.presets import PRESETS
from data_shards.tasks.read import read_split
from data_shards.tasks.report import DataReport
from data_shards.tasks.settings import TaskDataSettings
from kd.tasks.metrics.catalogue import OFFICIAL


def test_mrpc_keeps_quotes_as_text_and_leaves_out_the_byte_order_mark(read, mrpc):
    train = read(preset="glue/mrpc", folder=mrpc).splits["train"]
    assert train.texts[0] == 'He said " the deal is done .'
    assert train.pairs == ["The deal is done , he said .", 'It \u2028snowed " there .', "Two men were winners ."]
    assert train.labels == ["equivalent", "not_equivalent", "equivalent"]
    assert train.places == [f"{mrpc}/train.tsv:{line}" for line in (2, 3, 4)]


def test_cola_has_no_header_and_no_last_line_end(read, cola):
    data = read(preset="glue/cola", folder=cola)
    assert data.splits["train"].texts == ["The car honked down the road.", "The car honked the road down.", "Birds sing."]
    assert data.splits["train"].labels == ["acceptable", "unacceptable", "acceptable"]
    assert data.labels == ["unacceptable", "acceptable"]
    assert data.report.count("rows that are also in train", "dev") == 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_for_files_and_for_the_hub(name):
    hub = TaskDataSettings(preset=name)
    assert all(path.startswith("hub:") for path in hub.paths("train"))
    assert hub.metrics
    files = TaskDataSettings(preset=name, folder="folder")
    assert files.paths("train")[0].startswith("folder/")
    assert files.kind == hub.kind
    assert files.labels == hub.labels


def test_the_presets_are_the_nine_glue_tasks_squad_conll_and_imdb():
    glue = {name.split("/")[1].split("-")[0] for name in PRESETS if name.startswith("glue/")}
    assert glue == {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    assert {"squad", "squad_v2", "conll2003", "imdb"} <= set(PRESETS)


def test_presets_name_the_official_metrics():
    assert {name: preset.metrics for name, preset in PRESETS.items()} == OFFICIAL


def test_a_preset_is_written_out_and_read_again_without_change():
    settings = TaskDataSettings(preset="glue/cola", folder="somewhere", max_length=64)
    assert TaskDataSettings(**settings.model_dump()) == settings
    assert (settings.max_length, settings.header, settings.columns.text) == (64, False, 3)


@pytest.mark.parametrize(
    "names", [("eng.train", "eng.testa", "eng.testb"), ("train.txt", "valid.txt", None), ("train.txt", "val.txt", "test.txt")]
)
def test_conll_is_found_under_the_names_of_its_copies(read, write, tmp_path, names):
    for name in names:
        if name:
            write(f"conll/{name}", f"EU NNP I-NP I-ORG\n{name} X O O\n")
    data = read(preset="conll2003", folder=str(tmp_path / "conll"))
    assert [row[0][1] for row in (data.splits[split].words for split in data.splits)] == [name for name in names if name]
    notes = [line for line in data.report.notes if line.startswith("test: left out")]
    assert len(notes) == (names[2] is None)


def test_files_of_the_user_are_not_mixed_with_those_of_the_preset():
    settings = TaskDataSettings(preset="glue/qnli", dev="mine.tsv", folder="official")
    assert (settings.train, settings.dev) == (None, "mine.tsv")


OFFICIAL_TESTS = {
    "glue/cola": 'index\tsentence\n0\tBill whistled past the "house.\n1\tHe yawned.\n',
    "glue/sst2": 'index\tsentence\n0\tuneasy "mishmash\n1\tfine\n',
    "glue/mrpc": '\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tPCCW said "so .\tIt did .\n1\t3\t4\tA\tB\n',
    "glue/stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n"
    '0\tnews\tf\t2015\t1\tn\tn\tA girl .\tA "brush .\n1\tnews\tf\t2015\t2\tn\tn\tC\tD\n',
    "glue/qqp": "id\tquestion1\tquestion2\n0\tWhy?\tWho?\n1\tA?\tB?\n",
    "glue/mnli": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2\n0\t1\t2\tx\tx\tx\tx\tx\tHi .\tYes .\n1\t1\t2\tx\tx\tx\tx\tx\tA\tB\n",
    "glue/qnli": "index\tquestion\tsentence\n0\tWhat?\tThis.\n1\tA?\tB.\n",
    "glue/rte": "index\tsentence1\tsentence2\n0\tIt is.\tIt was.\n1\tA\tB\n",
    "glue/wnli": "index\tsentence1\tsentence2\n0\tMaude.\tDora.\n1\tA\tB\n",
}


@pytest.mark.parametrize("name", OFFICIAL_TESTS)
def test_official_test_files_are_read_without_labels(name, write):
    settings = TaskDataSettings(preset=name, folder="official", test=write("test.tsv", OFFICIAL_TESTS[name]))
    test = read_split(settings, "test", DataReport())
    assert len(test) == 2
    assert test.labels is None
    last = OFFICIAL_TESTS[name].splitlines()[1].split("\t")
    column = {"glue/mnli": 8, "glue/stsb": 7, "glue/mrpc": 3}.get(name, 1)
    assert test.texts[0] == last[column]  # a quote is text
    assert (test.pairs is None) == (name in ("glue/cola", "glue/sst2"))
    assert test.places[0].endswith("test.tsv:2")


def test_a_named_test_file_joins_the_official_files_of_the_folder(read, write, cola):
    data = read(preset="glue/cola", folder=cola, test=write("test.tsv", OFFICIAL_TESTS["glue/cola"]))
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 3, "dev": 2, "test": 2}
    labelled = write("own.tsv", "gj04\t1\t\tBirds sing.\n")  # in the form of the other files
    assert read(preset="glue/cola", folder=cola, test=labelled).splits["test"].labels == ["acceptable"]
