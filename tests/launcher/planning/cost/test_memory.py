"""Planned memory by part: figures worked out by hand, and what changes it."""

import pytest
from planned_runs import BERT, DISTILBERT, planned_run

from launcher.planning.cost.memory import plan_memory, with_micro_batch
from launcher.planning.devices.devices import DEVICES

CPU, H100 = DEVICES["cpu"], DEVICES["h100"]
P = DISTILBERT.parameters


def test_the_parts_of_an_update_are_those_worked_out_by_hand():
    parts = plan_memory(planned_run(), CPU)["update"].parts
    assert parts["libraries"] == 470_000_000
    assert parts["teacher: weights"] == 4 * BERT.parameters
    assert (parts["student: weights"], parts["student: masters"], parts["student: moments"]) == (4 * P, 4 * P, 8 * P)
    layer = 128 * (4 * (8 * 768 + 2 * 3072) + 16 + 4 * 128 + 4 * 12)  # the closed form
    assert parts["activations"] == 8 * (6 * layer + 128 * (4 * 768 + 8 + 16))
    assert parts["head: chunks"] == (2 * 4 * 512 + 10 * 4 * 16) * 30522  # a chunk of two models, and ten tiles
    # a report line compares 8 rows, 15 % of their 128 positions: six tensors of them are more than small chunks
    report = 6 * 4 * round(8 * 128 * 0.15) * 30522
    assert plan_memory(planned_run(chunk_tokens=48), CPU)["update"].parts["head: chunks"] == report
    assert plan_memory(planned_run(chunk_tokens=48, ranks=8), CPU)["update"].parts["head: chunks"] == (2 * 4 * 48 + 10 * 4 * 16) * 30522
    assert parts["head: gradient of the decoder"] == 4 * 30522 * 768
    assert parts["head: states"] == 5 * 8 * 128 * 768 * 4
    assert parts["DeepSpeed's buckets"] == 2 * 4 * P


def test_in_bf16_the_decoders_gradient_of_several_chunks_is_summed_in_fp32_and_copied():
    parts = plan_memory(planned_run(precision="bf16"), H100)["update"].parts
    assert parts["head: gradient of the decoder"] == (4 + 2) * 30522 * 768
    one = plan_memory(planned_run(precision="bf16", all_logits=False), H100)["update"].parts  # 154 tokens
    assert one["head: gradient of the decoder"] == 2 * 30522 * 768
    assert parts["student: weights"] == 2 * P


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_shares_masters_gradients_and_weights_from_its_stage_on(stage: int):
    parts = plan_memory(planned_run(ranks=4, stage=stage), H100)["update"].parts
    share = [1, 1, 1]
    for part in range(stage):
        share[part] = 4
    assert parts["student: moments"] == -(-8 * P // share[0])
    assert parts["gradients"] == 4 * P // share[1]
    assert parts["student: weights"] == -(-4 * P // share[2])
    assert ("student: gathered" in parts) == (stage == 3)
    assert ("student: masters" in parts) == (stage > 0)


def test_memory_grows_with_micro_batch_and_window_and_falls_with_checkpointing():
    def update(**changes: object) -> int:
        return plan_memory(planned_run(**changes), H100)["update"].total

    assert update(micro_batch=16) > update() > update(checkpointing=True)
    assert plan_memory(with_micro_batch(planned_run(), 16), H100)["update"].total == update(micro_batch=16)


def test_a_gpus_memory_has_no_checkpoint_and_a_cpus_has():
    assert [moment.name for moment in plan_memory(planned_run(), H100).moments] == ["build", "update", "evaluate"]
    cpu = plan_memory(planned_run(), CPU)
    assert [moment.name for moment in cpu.moments] == ["build", "update", "evaluate", "save"]
    assert cpu["save"].parts["read back"] == 8 * P  # the file of moments
    assert cpu.peak is max(cpu.moments, key=lambda moment: moment.total)
    assert len(plan_memory(planned_run(evaluate_batch=0), CPU).moments) == 3


def test_a_process_on_cpus_keeps_what_it_frees_and_evaluation_and_saving_come_on_top():
    plan = plan_memory(planned_run(), CPU)
    update, evaluate, save = (plan[name].parts for name in ("update", "evaluate", "save"))
    held = sum(size for name, size in update.items() if name.startswith(("libraries", "student", "teacher: weights")))
    assert 4 * P < 256 << 20  # the buckets' blocks are kept
    assert evaluate["kept of the update"] == plan["update"].total - held
    scored = min(2048, round(32 * 128 * 0.15))
    assert evaluate["scores"] == 9 * scored * 30522
    assert "checkpoint" not in save  # its copies fill what is kept
    maps = (2 + 8) * 32 * 12 * 128 * 128  # of 32 rows: larger than an update's of 8
    eager = plan_memory(planned_run(attention="eager", precision="bf16"), CPU)
    assert eager["evaluate"].parts["scores"] == 9 * scored * 30522 + maps
    apart = plan_memory(planned_run(attention="documents"), CPU)
    assert apart["evaluate"].parts["scores"] == 9 * scored * 30522 + 4 * 32 * 128 * (3 * 768 + 12 * 128)


def test_a_split_teacher_is_read_whole_once_and_gathers_while_it_runs():
    share = BERT.parameters // 2
    split = plan_memory(planned_run("zero3", share, ranks=2), CPU)
    assert split["update"].parts["teacher: weights"] == 4 * share
    assert split["build"].parts["teacher: read whole"] == 4 * (BERT.parameters - share)
    assert split["update"].parts["teacher: pass"] >= 4 * 2 * 30522 * 768  # embeddings while they run, and the decoder for the head
