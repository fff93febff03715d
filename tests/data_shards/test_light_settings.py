"""Settings are read before anything heavy is imported."""

import subprocess
import sys

import pytest

HEAVY = {"numpy", "torch", "datasets", "transformers", "tokenizers", "webdataset", "pyarrow", "fsspec"}


@pytest.mark.parametrize("module", ["data_shards.stream.settings", "data_shards.sources.settings", "data_shards.build.settings"])
def test_settings_import_nothing_heavy(module):
    script = f"import {module}, sys; print(*(set(sys.modules) & {HEAVY!r}))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == ""
