"""`stillhouse plan` on the command line: text, JSON, picture, and mistakes in one line."""

import argparse
import json
from pathlib import Path

import pytest
from transformers import BertConfig

from launcher.commands.parser import parser
from launcher.doctor.plan import run
from launcher.errors import LaunchError


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


@pytest.fixture
def task(tmp_path: Path, corpus) -> list[str]:
    """A configuration on 40 rows of 3 to 40 words, with the teacher of the tests."""
    for name in ("train", "dev"):
        rows = [{"text": " ".join(["a"] * (3 if n else 40)), "label": "bad" if n % 2 else "good"} for n in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(
        f"run: {{folder: {tmp_path}/run}}\n"
        f"data: {{kind: classification, train: {tmp_path}/train.jsonl, dev: {tmp_path}/dev.jsonl, max_length: 48}}\n"
        f"student: {{layers: every_other}}\nteacher: {{model: {corpus.model}}}\ntrain: {{global_batch: 8, micro_batch: 8, epochs: 5}}\n"
    )
    return ["plan", str(tmp_path / "task.yaml")]


def test_a_task_is_planned_from_its_rows(task: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(parser().parse_args([*task, "--gpu", "l4", "--price", "2"])) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "micro-batch x 8 rows of 8 = 64 tokens; bf16",
        "40 rows an epoch, 5 epochs",
        "computed once",
        "25 updates",
        "rows are at most",
    ):
        assert part in text, part
    assert run(parser().parse_args([*task, "--gpu", "l4", "teacher.cache_outputs=false", "--json"])) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["updates"] == 25
    assert plan["seconds"]["teacher"] > 0
    refused = {row["mode"]: row.get("refused") for row in plan["teacher_modes"]}["cached"]
    assert refused == "a task keeps outputs instead, with teacher.cache_outputs"
    with pytest.raises(LaunchError, match=r"--tokens: expected none for a task, got 1e\+06; set train\.epochs=N or train\.updates=N"):
        run(parser().parse_args([*task, "--tokens", "1e6"]))


@pytest.mark.parametrize(("name", "kind"), [("compare/layers", r"a comparison \(variants\)"), ("chains/assistants", r"a chain \(links\)")])
def test_a_file_of_several_runs_is_refused_in_one_line(name: str, kind: str):
    with pytest.raises(LaunchError, match=rf"expected the configuration of one run, got {kind}; plan one of its runs"):
        run(parser().parse_args(["plan", str(Path(__file__).parents[3] / "configs" / f"{name}.yaml")]))


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
