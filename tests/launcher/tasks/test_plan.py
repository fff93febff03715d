"""The plan of a run on a task."""

from pathlib import Path

import pytest
from transformers import BertConfig

from launcher.config.load import load_run
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.tasks.plan import make_task_plan, task_rows
from launcher.tasks.source import TaskSource


def test_rows_longer_than_a_models_positions_are_refused_before_it_is_loaded(tmp_path: Path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
    BertConfig(**sizes, max_position_embeddings=64).save_pretrained(tmp_path / "model")
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"a{n},{n % 2}\n" for n in range(8)))
    (tmp_path / "x.yaml").write_text(
        f"run: {{folder: {tmp_path}/run}}\n"
        f"data: {{kind: classification, train: {tmp_path}/a.csv, dev_fraction: 0.5, max_length: 64}}\n"
        f"student: {{init: {tmp_path}/model, architecture: same}}\n"
        "train: {global_batch: 2, micro_batch: 1, updates: 2, precision: fp32}\n"
    )
    config = load_run(str(tmp_path / "x.yaml"))
    assert isinstance(config, TaskRunConfig)
    plan = make_task_plan(config, TaskSource.read(config), 2, shapes=[])
    rows = dict(pair for pair in task_rows(plan) if pair[0] in ("an update", "the run"))
    assert rows == {"an update": "2 ranks x 1 micro-batch x 1 row = 2 rows", "the run": "2 updates (0 of warm-up), 1 epoch"}
    longer = load_run(str(tmp_path / "x.yaml"), ["data.max_length=65"])
    assert isinstance(longer, TaskRunConfig)
    with pytest.raises(LaunchError, match=r"^data\.max_length: expected at most 64, the positions of the student, got 65; lower it$"):
        make_task_plan(longer, TaskSource.read(longer), 1)
