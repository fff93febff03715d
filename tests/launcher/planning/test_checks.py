"""A model and a corpus belong together: vocabulary, positions, packing."""

from pathlib import Path

import pytest

from data_shards.storage.manifest import Manifest
from data_shards.stream.settings import StreamSettings
from kd.models.loading import load_mlm
from launcher.errors import LaunchError
from launcher.planning import checks
from launcher.planning.checks import check_fits


@pytest.mark.parametrize("surplus", [0, 1, 256])
def test_a_vocabulary_as_large_as_the_shards_or_padded_to_a_round_number_fits(save_model, corpus, tmp_path: Path, surplus: int):
    save_model(tmp_path, corpus.vocabulary + surplus)
    check_fits("teacher", load_mlm(str(tmp_path)), Manifest.load(corpus.shards), StreamSettings(window_tokens=32))


@pytest.mark.parametrize("surplus", [-1, -50, 257, 5000])
def test_a_vocabulary_of_another_tokenizer_is_refused(save_model, corpus, tmp_path: Path, surplus: int):
    save_model(tmp_path, corpus.vocabulary + surplus)
    with pytest.raises(LaunchError) as caught:
        check_fits("teacher", load_mlm(str(tmp_path)), Manifest.load(corpus.shards), StreamSettings(window_tokens=32))
    assert str(caught.value) == (
        f"teacher: expected a vocabulary of {corpus.vocabulary}, the shards', got {corpus.vocabulary + surplus}; "
        "build shards with the teacher's own tokenizer"
    )


def test_windows_may_be_as_long_as_the_positions_and_no_longer(corpus):
    encoder, manifest = load_mlm(str(corpus.model)), Manifest.load(corpus.shards)
    check_fits("student", encoder, manifest, StreamSettings(window_tokens=48))
    with pytest.raises(LaunchError, match=r"data\.window_tokens: expected at most 48, the student's positions, got 49; shorten them"):
        check_fits("student", encoder, manifest, StreamSettings(window_tokens=49))


def test_a_model_with_a_convolution_over_the_row_asks_for_one_document_a_row(corpus):
    encoder, manifest = load_mlm(str(corpus.model)), Manifest.load(corpus.shards)
    encoder.packs = False
    with pytest.raises(LaunchError, match=r"data\.packing: expected documents for the teacher, whose convolution .* got windows; set data"):
        check_fits("teacher", encoder, manifest, StreamSettings(window_tokens=32))
    check_fits("teacher", encoder, manifest, StreamSettings(window_tokens=32, packing="documents"))
    check_fits("teacher", encoder, manifest, StreamSettings(window_tokens=32, attend_across_documents=True))


def test_the_spare_rows_are_those_of_the_documentation():
    assert checks.SPARE_ROWS == 256
