"""The manifest: read strictly, and known by what it holds."""

import json

import pytest

from data_shards.errors import DataError
from data_shards.storage.manifest import JOURNAL, Manifest


@pytest.fixture
def folder(tmp_path, make_shards):
    make_shards(tmp_path, [[10, 11, 12], [20]], [[30, 31]])
    return tmp_path


def test_counts_are_those_of_the_documents(folder):
    manifest = Manifest.load(folder)
    assert (manifest.documents("train"), manifest.tokens("train")) == (2, 4)
    assert (manifest.documents("heldout"), manifest.tokens("heldout")) == (1, 2)
    assert (manifest.cls_id, manifest.sep_id, manifest.pad_id, manifest.mask_id) == (2, 3, 0, 4)
    assert (manifest.vocabulary_size, manifest.dtype) == (700, "uint16")
    assert sorted(manifest.sidecars) == [
        "lengths-heldout.npy", "lengths-train.npy", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "vocabulary.npz",
    ]  # fmt: skip


def test_the_fingerprint_is_of_the_content_not_of_where_it_came_from(folder):
    manifest = Manifest.load(folder)
    elsewhere = manifest.built_from.model_copy(update={"settings": {"sources": "other"}})
    assert manifest.model_copy(update={"built_from": elsewhere}).fingerprint == manifest.fingerprint
    assert manifest.model_copy(update={"sep_id": 9}).fingerprint != manifest.fingerprint


def test_a_missing_folder_an_unfinished_and_an_unbuilt_one_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="absent: expected a folder of shards, got no folder"):
        Manifest.load(tmp_path / "absent")
    with pytest.raises(DataError, match="got none; build the shards first"):
        Manifest.load(tmp_path)
    (tmp_path / JOURNAL).write_text("{}")
    with pytest.raises(DataError, match="got a build that has not finished; run the same build again"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": "stillhouse-shards-9"}, "at format; build the shards again"),
        ({"surplus": 1}, "Extra inputs are not permitted at surplus"),
        ({"dtype": "float32"}, "at dtype"),
        ({"splits": {"train": [{"name": "../../etc/x.tar"}]}}, r"at splits\.train\.0\.name"),
        ({"sidecars": {"../x": {"bytes": 1, "sha256": "0" * 64}}}, r"at sidecars"),
    ],
)
def test_a_manifest_that_is_not_one_names_the_first_fault(folder, change, line):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=line) as error:
        Manifest.load(folder)
    assert "\n" not in str(error.value)


def test_a_value_that_changed_since_it_was_written_is_noticed_by_the_digest(folder):
    path = folder / "manifest.json"
    content = path.read_text()
    assert '"pad_id": 0' in content
    path.write_text(content.replace('"pad_id": 0', '"pad_id": 1'))
    with pytest.raises(DataError, match="expected the digest of what it says, got another; bring the file back"):
        Manifest.load(folder)
    values = json.loads(content)
    del values["digest"]
    path.write_text(json.dumps(values))
    assert Manifest.load(folder).pad_id == 0, "one without a digest is taken at its word"


def test_bytes_that_are_no_json_are_one_line(folder):
    (folder / "manifest.json").write_bytes(b"\xff\x00{")
    with pytest.raises(DataError, match="expected a manifest of format stillhouse-shards-1, got"):
        Manifest.load(folder)
