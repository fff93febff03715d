"""Settings are read before anything heavy is imported."""

import subprocess
import sys

import pytest

HEAVY = {"numpy", "torch", "datasets", "transformers", "tokenizers", "webdataset", "pyarrow", "fsspec"}


MODULES = ("stream.settings", "sources.settings", "build.settings", "tasks.settings")


@pytest.mark.parametrize("module", [f"data_shards.{name}" for name in MODULES])
def test_settings_import_nothing_heavy(module):
    script = f"import {module}, sys; print(*(set(sys.modules) & {HEAVY!r}))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_an_open_corpus_imports_transformers_only_for_the_tokenizer(shards):
    """A start opens the corpus before anything heavy, so that a mistake is said at once."""
    opened = f"from data_shards.corpus import Corpus; Corpus.open({str(shards)!r}).lengths('train')"
    script = f"{opened}; import sys; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "False"
