"""Presets read the official files as they are, and the hub's columns."""

import pytest

from data_shards.tasks.presets import PRESETS
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
