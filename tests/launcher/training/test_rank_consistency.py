"""What must be the same on all ranks and, of the teachers, at every start."""

from pathlib import Path

import pytest

from kd.checkpoint.on_disk import Checkpoint, Progress
from launcher.config.load import load_config
from launcher.errors import SharedError
from launcher.training.rank_consistency import check_teachers, teachers


def test_a_teacher_whose_files_have_changed_since_the_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    config = load_config("tiny", [f"teacher.model={tmp_path}"])
    saved = Checkpoint(tmp_path, Progress(1, 0, 0, {"teachers": teachers(config)}), {})
    check_teachers(config, saved)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    with pytest.raises(SharedError, match="teacher: expected the model that the run began with, got other files in its folder"):
        check_teachers(config, saved)
    check_teachers(config, Checkpoint(tmp_path, Progress(1, 0, 0, {}), {}))  # one of an earlier version, which kept no digests
