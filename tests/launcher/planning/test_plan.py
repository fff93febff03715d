"""The plan against figures worked out by hand, and against what the models and engines then really hold."""

import io
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForMaskedLM, MPNetConfig, PreTrainedTokenizerFast

from data_shards.build.sidecars import finish
from data_shards.storage.manifest import BuiltFrom
from data_shards.storage.shard_writer import SplitWriter
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from kd.training.settings import CheckpointSettings
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.planning.checks import check_disk, disk
from launcher.planning.memory import student_memory
from launcher.planning.plan import Plan, make_plan
from launcher.planning.shape_models import meta_model, meta_student
from launcher.planning.table import rows, show_plan

ROOT = Path(__file__).parents[3]
VOCABULARY = 40
TINY = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 32}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of 10 documents of 20 tokens, and 3 held-out ones: 218 and 64 positions of content, 8 and 3 windows of 32."""
    folder = tmp_path_factory.mktemp("shards")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {name: index for index, name in enumerate([*special, *(f"w{n}" for n in range(5, VOCABULARY))])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    writers = {}
    for split, documents in (("train", 10), ("heldout", 3)):
        writer = writers[split] = SplitWriter(folder, split, 1000, 1000, VOCABULARY, lambda entry: None)
        ids = (5 + np.arange(20 * documents) % (VOCABULARY - 5)).astype(np.uint8)
        writer.add(ids, np.full(documents, 20, np.uint32), [b""] * documents)
        writer.finish()
    entries = {split: tuple(writer.entries) for split, writer in writers.items()}
    built_from = BuiltFrom(settings={}, documents_read=13, empty=0, duplicate=0, invalid=0)
    finish(folder, entries, writers["train"].counts, tokenizer, built_from)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config.json alone: a plan reads no weight."""
    folder = tmp_path_factory.mktemp("teacher")
    BertConfig(**TINY, max_position_embeddings=64, pad_token_id=0).save_pretrained(folder)
    return folder


@pytest.fixture
def configured(shards: Path, teacher: Path, tmp_path: Path):
    """configured(section={…}): a run of 6 updates of 4 windows, with sections replaced in part."""

    def make(**sections: dict[str, object] | None) -> RunConfig:
        values: dict[str, object] = {
            "run": {"folder": str(tmp_path / "runs" / "one")},
            "data": {"shards": str(shards), "window_tokens": 32, "lanes": 2},
            "teacher": {"model": str(teacher)},
            "objective": [{"kind": "mlm", "weight": 1.0}],
            "train": {"global_batch": 4, "micro_batch": 1, "updates": 6, "precision": "fp32"},
        }
        for name, section in sections.items():
            before = values.get(name)
            values[name] = {**before, **section} if isinstance(before, dict) and section is not None else section
        return RunConfig.model_validate(values)

    return make


def test_updates_windows_and_tokens_are_those_worked_out_by_hand(configured):
    plan = make_plan(configured(), 2)
    assert (plan.ranks, plan.micro_batch, plan.micro_batches, plan.windows_per_update) == (2, 1, 2, 4)
    assert (plan.updates, plan.windows, plan.windows_per_epoch, plan.epochs) == (6, 24, 8, 3.0)
    assert plan.tokens == 3 * (218 + 2 * 8)
    assert plan.tokens_per_update == (218 + 2 * 8) / 2
    assert plan.heldout_windows == 3
    assert plan.warmup_updates == round(0.05 * 6)


@pytest.mark.parametrize(
    ("length", "updates"),
    [({"updates": 6}, 6), ({"epochs": 2}, 4), ({"epochs": 0.3}, 1), ({"tokens": 32 * 9}, 3)],
)
def test_a_run_is_as_long_as_it_says_whichever_way_it_says_it(configured, length: dict[str, float], updates: int):
    assert make_plan(configured(train={"updates": None} | length), 1).updates == updates


def test_sizes_of_bert_base_and_distilbert_are_the_published_ones(tmp_path: Path):
    BertConfig().save_pretrained(tmp_path)
    bert = meta_model(str(tmp_path))
    distilbert = meta_student(StudentSettings(layers="distilbert"), bert)
    assert sum(weight.numel() for weight in bert.parameters()) == 109_514_298
    assert sum(weight.numel() for weight in distilbert.parameters()) == 66_985_530
    assert all(weight.is_meta for weight in [*bert.parameters(), *distilbert.parameters()])


@pytest.mark.parametrize(
    "settings",
    [
        StudentSettings(),
        StudentSettings(architecture="same", layers="last", count=3),
        StudentSettings(freeze_positions=True),
        StudentSettings(trainable="head"),
        StudentSettings(layers=[0, 3]),
    ],
)
def test_a_students_shape_is_that_of_the_student_that_is_made(tmp_path: Path, settings: StudentSettings):
    config = BertConfig(**TINY)
    config.save_pretrained(tmp_path)
    real = make_student(settings, Encoder(BertForMaskedLM(config)), seed=1)
    shape = meta_student(settings, meta_model(str(tmp_path)))
    assert shapes(shape) == shapes(real)


@pytest.mark.parametrize("new_head", [False, True])
def test_a_student_from_a_folder_has_all_of_the_folders_layers(teacher: Path, new_head: bool):
    student = meta_student(StudentSettings(init=str(teacher), new_head=new_head, trainable="head"), None)
    assert student.layers == 4
    assert shapes(student).keys() == shapes(meta_model(str(teacher))).keys()
    trained = {name for name, weight in student.hf.named_parameters() if weight.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"cls"}


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ({"width": 512}, r"student\.width: expected at most \d+, the teacher's, got 512"),
        ({"heads": 64}, r"student\.heads: expected at most \d+, the teacher's, got 64"),
        ({"shape": "6x768"}, r"student\.width: expected at most|student\.count: expected at most"),
    ],
)
def test_a_size_that_the_teacher_cannot_give_is_refused_before_a_weight_is_there(configured, student, said: str):
    with pytest.raises(KdError, match=said):
        make_plan(configured(student=student), 1)


def test_recomputing_activations_is_refused_before_a_weight_is_there_where_the_familys_code_cannot(configured, tmp_path: Path):
    MPNetConfig(**TINY, max_position_embeddings=66).save_pretrained(tmp_path / "mpnet")
    settings = {"teacher": {"model": str(tmp_path / "mpnet")}, "student": {"architecture": "same"}}
    make_plan(configured(**settings), 1)
    with pytest.raises(KdError, match=r"train\.activation_checkpointing: expected a family whose code can, got mpnet"):
        make_plan(configured(**settings, train={"activation_checkpointing": True}), 1)


def test_a_plan_with_a_student_that_a_teacher_cannot_give_is_refused(configured):
    with pytest.raises(KdError, match=r"student\.layers: expected layers from 0 to 3"):
        make_plan(configured(student={"layers": [0, 4]}), 1)


@pytest.mark.parametrize("evaluate", [{"keep": "best"}, {"patience": 2}])
def test_a_choice_by_held_out_scores_is_refused_where_nothing_is_held_out(configured, shards: Path, tmp_path: Path, evaluate):
    shutil.copytree(shards, tmp_path / "shards")
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    del manifest["splits"]["heldout"], manifest["digest"]
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    data = {"shards": str(tmp_path / "shards")}
    assert make_plan(configured(data=data), 1).heldout_windows == 0
    (name,) = evaluate
    with pytest.raises(
        LaunchError, match=rf"evaluate\.{name}: expected held-out documents in .*, got none; build the shards with --heldout 0.01"
    ):
        make_plan(configured(data=data, evaluate=evaluate), 1)


@pytest.mark.parametrize(
    ("stage", "precision", "expected"),
    [  # weights, gradients, masters, moments of 100 parameters of which 80 train, on 4 ranks
        (0, "fp32", (400, 320, 0, 640)),
        (1, "fp32", (400, 320, 80, 160)),
        (1, "bf16", (200, 320, 80, 160)),
        (2, "bf16", (200, 80, 80, 160)),
        (3, "bf16", (50, 80, 80, 160)),
    ],
)
def test_memory_of_a_student_by_stage_and_precision(stage: int, precision: str, expected: tuple[int, ...]):
    memory = student_memory(100, 80, stage, precision, 4)
    assert (memory.weights, memory.gradients, memory.masters, memory.moments) == expected
    assert memory.total == sum(expected)


@pytest.mark.slow
def test_memory_of_a_student_is_what_the_engine_holds(run_ranks, tmp_path):
    cases = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (1, "bf16"), (2, "bf16")]
    code = (
        "from transformers import BertConfig, BertForMaskedLM\n"
        "from kd.distributed import process_group as distributed\nfrom kd.training.engine import StudentEngine\n"
        "from kd.terms.schedules import OptimizerSettings\nfrom kd.training.settings import TrainSettings\ndistributed.start()\n"
        f"for stage, precision in {cases}:\n"
        "    train = TrainSettings(global_batch=1, micro_batch=1, updates=1, zero_stage=stage)\n"
        f"    model = BertForMaskedLM(BertConfig(**{TINY}))\n"
        "    count = sum(p.numel() for p in model.parameters())\n"
        "    engine = StudentEngine(model, train, OptimizerSettings(), precision)\n"
        "    print('held', count, engine.stage, engine.bytes_per_rank)\n"
    )
    (tmp_path / "held.py").write_text(code)
    lines = [line.split()[1:] for line in run_ranks(1, tmp_path / "held.py").splitlines() if line.startswith("held")]
    assert len(lines) == len(cases)
    for (asked, precision), (parameters, stage, held) in zip(cases, lines, strict=True):
        assert int(stage) == (0 if precision == "fp32" else asked)  # on one rank
        memory = student_memory(int(parameters), int(parameters), int(stage), precision, 1)
        # gradients come and go, so the engine does not count them; step counts and padding are a few bytes more
        assert int(held) == pytest.approx(memory.total - memory.gradients, rel=0.01), (stage, precision)


def test_a_teachers_bytes_follow_its_mode(configured, teacher: Path):
    weights = list(meta_model(str(teacher)).hf.named_parameters())
    whole = sum(weight.numel() for _, weight in weights)
    matrices = sum(weight.numel() for _, weight in weights if weight.dim() == 2)
    layers = 4 * (4 * 16 * 16 + 2 * 16 * 32)
    for mode, held in (
        ("replicated", whole),
        ("zero3", whole - matrices + matrices // 2),
        ("tensor_parallel", whole - layers + layers // 2),
    ):
        plan = make_plan(configured(teacher={"mode": mode, "precision": "bf16"}), 2)
        (planned,) = plan.teachers
        assert (planned.parameters, planned.bytes, planned.mode) == (whole, 2 * whole, mode)
        assert planned.bytes_per_rank == 2 * held


def test_a_checkpoint_is_three_numbers_a_trained_weight_and_one_a_frozen(configured):
    every = make_plan(configured(), 1)
    assert every.checkpoint_bytes == 12 * every.student_parameters
    head = make_plan(configured(student={"trainable": "head"}), 1)
    assert head.trainable == 16 * 16 + 16 + 2 * 16 + VOCABULARY
    assert head.checkpoint_bytes == 12 * head.trainable + 4 * (head.student_parameters - head.trainable)


def test_projections_are_counted_where_a_rank_holds_them_and_in_the_checkpoint(configured):
    """Hints on two layers: 2 x (8 x 16 + 16) weights beside a student of half the width; every fp32 one costs what a student's does."""
    smaller = {"width": 8, "architecture": "same"}
    plain = make_plan(configured(student=smaller), world=1)
    hints = [{"kind": "mlm"}, {"kind": "hints", "layer_map": [{"student": 0, "teacher": 1}, {"student": 1, "teacher": 3}]}]
    more = make_plan(configured(student=smaller, objective=hints), world=1)
    assert more.projections == more.trainable - plain.trainable == 2 * (8 * 16 + 16)
    assert more.memory.total - plain.memory.total == 16 * more.projections  # weight, gradient and two moments: one rank, fp32
    assert more.checkpoint_bytes - plain.checkpoint_bytes == 12 * more.projections
    assert "288 more in projections" in dict(rows(more))["student"]
    frozen = make_plan(configured(student=smaller, phases=[{"name": "a", "trains": ["layers"]}], objective=hints), world=1)
    assert frozen.projections == more.projections
    assert frozen.memory.weights == more.memory.weights


def test_the_logits_that_exist_at_once_are_a_chunk_of_each_model_and_what_the_terms_make_of_a_tile(configured):
    """A tile is as large as the chunk here. Of it there are the logits of both models, five of soft targets and three of mlm."""
    soft, both = [{"kind": "soft_targets"}], [{"kind": "soft_targets"}, {"kind": "mlm"}]
    assert make_plan(configured(), 1).logits_bytes == 4 * 32 * (1 + 4) * VOCABULARY  # a micro-batch is smaller than a chunk
    assert make_plan(configured(objective=soft), 1).logits_bytes == 4 * 32 * (2 + 7) * VOCABULARY
    assert make_plan(configured(objective=both, train={"chunk_tokens": 8}), 1).logits_bytes == 4 * 8 * (2 + 10) * VOCABULARY
    assert make_plan(configured(objective=[{"kind": "cosine"}]), 1).logits_bytes == 0


def test_a_run_without_a_teacher_has_a_plan_too(configured, teacher: Path):
    plan = make_plan(configured(teacher=None, student={"init": str(teacher), "new_head": True}), 1)
    assert plan.teachers == ()
    assert plan.student_layers == 4
    assert plan.logits_bytes == 4 * 32 * (1 + 4) * VOCABULARY
    assert "none" in shown(plan)


def test_what_the_folder_already_holds_is_taken_off_what_is_needed(tmp_path: Path):
    settings = CheckpointSettings(keep_last=2, keep_best=1)
    assert disk(tmp_path / "run", 1000, 300, settings)[0] == 4 * 1000 + 300
    old = tmp_path / "run" / "checkpoints" / "update-00000001"
    old.mkdir(parents=True)
    (old / "weights.safetensors").write_bytes(bytes(1500))
    assert disk(tmp_path / "run", 1000, 300, settings)[0] == 2500 + 300
    (old / "moments.safetensors").write_bytes(bytes(5000))
    assert disk(tmp_path / "run", 1000, 300, settings)[0] == 1000 + 300


def test_a_disk_too_small_for_the_checkpoints_is_known_before_the_start(configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    plan = make_plan(configured(), 1)
    with pytest.raises(LaunchError) as caught:
        check_disk(tmp_path / "run", plan.disk_needed, plan.disk_free)
    needed = 4 * 12 + 4  # bytes a parameter: two last, one best, one being written; the exported student
    parameters = sum(weight.numel() for weight in meta_student(StudentSettings(), meta_model(configured().teacher.model)).parameters())
    assert str(caught.value) == (
        f"run.folder: expected {needed * parameters / 1e3:.3g} kB free for checkpoints, got 1 kB in {tmp_path}; "
        "free space, lower checkpoint.keep_last or keep_best, or choose another folder"
    )
    assert plan.disk_free == 1000


def test_a_run_folder_that_is_a_file_is_refused_by_a_dry_run_too(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(LaunchError, match=f"^run.folder: expected a folder, got the file {tmp_path}/run; choose another$"):
        check_disk(tmp_path / "run", 1, 2)


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused(configured):
    with pytest.raises(LaunchError, match=r"train\.global_batch: expected a multiple of micro_batch x ranks = 1 x 3, got 4"):
        make_plan(configured(), 3)


def test_a_model_of_another_vocabulary_is_refused(configured, tmp_path: Path):
    BertConfig(**(TINY | {"vocab_size": 30})).save_pretrained(tmp_path / "model")
    with pytest.raises(LaunchError, match=r"teacher: expected a vocabulary of 40, the shards', got 30"):
        make_plan(configured(teacher={"model": str(tmp_path / "model")}), 1)


def test_windows_longer_than_the_models_positions_are_refused(configured):
    with pytest.raises(LaunchError, match=r"data\.window_tokens: expected at most 64"):
        make_plan(configured(data={"window_tokens": 65}, train={"global_batch": 1}), 1)


def test_a_plan_is_shown_as_a_table_of_everything(configured):
    text = shown(make_plan(configured(teacher={"mode": "zero3"}), 2))
    for part in ("2 ranks x 2 micro-batches x 1 window = 4 windows", "6 updates", "read 3 times", "zero3", "ZeRO-1", "disk", "free"):
        assert part in text, text


def test_a_cached_teacher_is_shown_with_the_runs_that_it_pays_for(configured):
    plan = make_plan(configured(), 1)
    assert "pays" not in shown(plan)
    cached = replace(plan, teachers=[replace(plan.teachers[0], mode="cached")])
    assert "cached, which pays from the second run with this data.seed" in shown(cached)


def shapes(encoder: Encoder) -> dict[str, tuple[torch.Size, bool]]:
    return {name: (weight.shape, weight.requires_grad) for name, weight in encoder.hf.named_parameters()}


def shown(plan: Plan) -> str:
    screen = io.StringIO()
    show_plan(plan, Console(file=screen, width=160))
    return screen.getvalue()


@pytest.mark.parametrize(
    ("term", "line"),
    [
        ({"kind": "hidden_mse", "layer_map": [{"student": 2, "teacher": 0}]}, r"layer_map: expected student layers from 0 to 1 .*, got 2"),
        ({"kind": "relations", "heads": 3}, r"\(relations\).heads: expected a number that divides the student's width 16, got 3"),
        (
            {"kind": "pkd", "layer_map": [{"student": 0, "teacher": [1, 4]}]},
            r"expected teacher layers from 0 to 3 .*, got 4; correct the pair",
        ),
    ],
)
def test_terms_that_the_two_models_cannot_satisfy_are_one_line_before_a_weight_is_read(configured, term: dict, line: str):
    with pytest.raises(KdError, match=line) as caught:
        make_plan(configured(objective=[term]), 1)
    assert "\n" not in str(caught.value)
