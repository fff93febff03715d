"""`stillhouse plan` on the command line: text, JSON, picture, and mistakes in one line."""

import argparse
import json
from pathlib import Path

import pytest
from transformers import BertConfig

from launcher.commands.parser import parser
from launcher.errors import LaunchError
from launcher.planning.cost.command import run


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with BERT-base's config.json alone."""
    folder = tmp_path_factory.mktemp("bert")
    BertConfig().save_pretrained(folder)
    return str(folder)


def arguments(bert: str, *words: str) -> argparse.Namespace:
    return parser().parse_args(["plan", "distilbert", f"teacher.model={bert}", "train.global_batch=2048", "train.micro_batch=4", *words])


def test_a_plan_needs_neither_shards_nor_weights(bert: str, capsys: pytest.CaptureFixture[str]):
    assert run(arguments(bert, "--nodes", "2", "--gpus", "8", "--gpu", "h100", "--tokens", "1e9", "--price", "2.5")) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "2 nodes x 8 H100 SXM 80 GB; an estimate: NVIDIA data sheet",
        "16 ranks x 32 micro-batches x 4 windows of 512 = 1,048,576 tokens; bf16, ZeRO-1",
        "memory of a rank",
        "954 updates",
        "at 2.5 a device-hour",
        "kWh",
        "cheapest for this run: replicated",
        "windows count as full, and text as read once",
    ):
        assert part in text, part


def test_the_json_has_the_same_numbers(bert: str, capsys: pytest.CaptureFixture[str]):
    assert run(arguments(bert, "--gpus", "8", "--gpu", "v100", "--tokens", "1e9", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["format"] == "stillhouse plan 1"
    assert plan["estimate"] is True
    assert plan["precision"] == "fp32"  # a V100 has no bf16
    assert plan["updates"] == 954
    assert plan["memory_bytes"] == max(sum(parts.values()) for parts in plan["memory"].values())
    assert plan["update_seconds"] == pytest.approx(sum(plan["seconds"].values()))
    assert [row["devices"] for row in plan["scaling"]][-1] == 1024
    assert {row["mode"] for row in plan["teacher_modes"]} == {"replicated", "zero3", "tensor_parallel", "cached"}


@pytest.mark.parametrize("name", ["plan.png", "plan.svg"])
def test_the_picture_is_written(bert: str, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    assert run(arguments(bert, "--gpu", "a100", "--tokens", "1e9", "--plot", str(tmp_path / name))) == 0
    begin = (tmp_path / name).read_bytes()[:60]
    assert begin.startswith(b"\x89PNG") or b"<?xml" in begin
    assert "memory of a rank" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpus", "3", "--tokens", "1e9"), r"train\.global_batch: expected a multiple of micro_batch x ranks = 4 x 3, got 2048"),
        ((), r"train\.epochs: expected shards to count, or a length, got neither; add --tokens N"),
        (("--tokens", "1e9", "--plot", "plan.pdf"), r"--plot plan\.pdf: expected a name that ends in \.png or \.svg, got \.pdf"),
        (("--tokens", "1e9", "--plot", "no/such/plan.png"), r"--plot no/such/plan\.png: expected a folder that exists"),
        (("--tokens", "1e9", "--gpu", "h1000"), r"--gpu h1000: expected one of h100"),
    ],
)
def test_mistakes_are_one_line(bert: str, words: tuple[str, ...], said: str):
    with pytest.raises(LaunchError, match=said):
        run(arguments(bert, *words))


def test_a_precision_that_the_device_lacks_is_refused(bert: str):
    words = parser().parse_args(["plan", "distilbert", f"teacher.model={bert}", "train.precision=bf16", "--gpu", "v100", "--tokens", "1e9"])
    words.settings += ["train.global_batch=2000"]
    with pytest.raises(LaunchError, match=r"train\.precision: expected fp32 for V100 SXM2 16 GB, which has no bf16, got bf16"):
        run(words)


def test_a_plan_without_a_configuration_is_refused():
    with pytest.raises(LaunchError, match=r"CONFIG: expected a configuration file or --calibrate, got neither"):
        run(parser().parse_args(["plan"]))
