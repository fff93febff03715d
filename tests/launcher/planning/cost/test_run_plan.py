"""Time of an update: FLOPs and collectives worked out by hand, scaling, teacher modes."""

from dataclasses import replace
from itertools import pairwise

import pytest
from planned_runs import BERT, DISTILBERT, planned_run

from launcher.errors import LaunchError
from launcher.planning.cost.collectives import collective_seconds, links_of, update_collectives
from launcher.planning.cost.operations import compute_seconds, flops
from launcher.planning.cost.run_plan import Cluster, on_ranks, plan_run
from launcher.planning.cost.scaling import COUNTS, limits, scale
from launcher.planning.cost.teacher_modes import cache_bytes, cheapest, compare_modes, crossovers
from launcher.planning.devices.devices import DEVICES, Device, EngineCost, Measured, device_of, device_text

H100, V100 = DEVICES["h100"], DEVICES["v100"]
D, F, V, S = 768, 3072, 30522, 128


def test_flops_are_two_a_weight_and_attention_and_the_head_three_times():
    parts = flops(planned_run())
    tokens = 64 * S
    layer = 2 * (4 * D * D + 2 * D * F) + 4 * S * D
    assert parts.forward == tokens * 6 * layer
    assert parts.backward == 2 * parts.forward
    assert parts.teacher == tokens * 12 * layer
    assert parts.head == tokens * (3 * (2 * V * D + 2 * D * D) + 2 * V * D + 2 * D * D)
    again = flops(planned_run(checkpointing=True))
    assert again.backward == 3 * parts.forward
    masked = flops(planned_run(all_logits=False))
    assert masked.head == pytest.approx(0.15 * parts.head, rel=0.01)  # whole positions of a micro-batch
    assert flops(planned_run("cached")).teacher == 0


def test_seconds_are_flops_over_the_stated_share_of_the_peak():
    work = planned_run(precision="bf16")
    seconds = compute_seconds(work, H100)
    assert seconds["forward"] == pytest.approx(flops(work).forward / (989.4e12 * 0.4))
    assert compute_seconds(planned_run(), V100)["forward"] == pytest.approx(flops(planned_run()).forward / (15.7e12 * 0.3))
    shared = compute_seconds(planned_run(ranks=4, precision="bf16"), H100)
    assert shared["optimizer"] == pytest.approx(seconds["optimizer"] / 4)  # ZeRO-1 shares the step


def test_a_ring_sends_twice_the_bytes_but_one_share():
    links = links_of(H100, 8, 8)
    assert links.rate == 450e9
    assert links.all_reduce(1e9) == pytest.approx(2 * 7 / 8 * 1e9 / 450e9 + 2 * 7 * 10e-6)
    assert links_of(H100, 1, 8).all_reduce(1e9) == 0
    assert links_of(V100, 16, 8).rate == 50e9  # a node's adapters are slower than its links
    assert links_of(V100, 16, 8).name == "network"


def test_collectives_follow_the_zero_stage_and_the_teachers_mode():
    P = DISTILBERT.parameters
    work = planned_run(ranks=8, precision="bf16")
    links = links_of(H100, 8, 8)
    ring = 7 / 8 / 450e9
    seconds = collective_seconds(work, links)
    assert seconds["gradients"] == pytest.approx(2 * (ring * 4 * P + 7 * 10e-6))
    assert seconds["weights"] == pytest.approx(ring * 2 * P + 7 * 10e-6)
    assert seconds["teacher gathers"] == 0
    split = collective_seconds(planned_run("zero3", BERT.parameters // 8, ranks=8, precision="bf16"), links)
    assert split["teacher gathers"] == pytest.approx(ring * 2 * BERT.parameters + 72 * 7 * 10e-6)
    whole = collective_seconds(replace(work, stage=0), links)
    assert whole["weights"] == 0
    assert collective_seconds(replace(work, stage=3), links)["weights"] > seconds["weights"]
    two = replace(planned_run(ranks=8, stage=2, global_batch=128), micro_batch=8)
    assert collective_seconds(two, links)["gradients"] == pytest.approx(
        2 * collective_seconds(replace(two, global_batch=64), links)["gradients"]
    )


def measured_device(**changes: object) -> Device:
    """A core whose rates are round numbers."""
    rates = Measured(
        threads=1,
        gemm={"fp32": {512: 0.1}},
        attention={"fp32 sdpa": {128: (0.3, 0.05, 0.5, 0.1)}},
        elementwise={"fp32": (25.0, 40.0)},
        head={"fp32": (3.0, 0.1, 1.0)},
        optimizer=1.0,
        all_reduce=(2e-4, 2.0),
    )
    return DEVICES["cpu"].model_copy(update={"measured": rates.model_copy(update=changes)})


def test_each_micro_batch_costs_its_layers_and_weights_whatever_its_tokens():
    table, P = V * D, DISTILBERT.parameters
    engine = {f"fp32 ZeRO-{stage}": EngineCost(layer_us=1000 * stage, weight_ns={table: (1.0, 2.0, 3.0)}) for stage in (1, 2)}
    device = measured_device(engine=engine)
    one, four = (planned_run(micro_batch=size) for size in (64, 16))
    more = compute_seconds(four, device)["backward"] - compute_seconds(one, device)["backward"]
    assert more == pytest.approx(3 * (6 * 1e-3 + 2e-9 * table + 1e-9 * (P - table)))
    assert compute_seconds(one, device)["optimizer"] == pytest.approx(3e-9 * P)
    stage_2 = compute_seconds(replace(four, stage=2), device)["backward"] - compute_seconds(four, device)["backward"]
    assert stage_2 == pytest.approx(4 * 6 * 1e-3)
    assert compute_seconds(four, measured_device())["backward"] > 0  # a file of an earlier version


def test_a_measured_layer_of_a_split_teacher_replaces_its_messages_latency():
    device = measured_device(all_reduce_bf16=(2e-4, 1.0), teacher_layer_us={"zero3": 6000.0, "tensor_parallel": 2000.0})
    tensor = planned_run("tensor_parallel", ranks=2, precision="bf16")
    sent = 2 * 12 * 2 * 2 * tensor.positions * D / 1e9  # two sums a layer of both ranks' rows, at bf16's 1 GB/s
    assert update_collectives(tensor, device, 2)["teacher gathers"] == pytest.approx(tensor.micro_batches * (sent + 12 * 2e-3))
    zero3 = planned_run("zero3", BERT.parameters // 2, ranks=2, precision="bf16")
    gathered = BERT.parameters / 1e9
    assert update_collectives(zero3, device, 2)["teacher gathers"] == pytest.approx(zero3.micro_batches * (gathered + 12 * 6e-3))
    alone = compute_seconds(planned_run(), measured_device(together=1.5))
    both = compute_seconds(planned_run(ranks=2, global_batch=128), measured_device(together=1.5))
    assert both["forward"] == pytest.approx(1.5 * alone["forward"])  # two ranks share caches


def test_a_run_on_more_devices_is_faster_until_the_batch_or_the_links_stop_it():
    work = planned_run(global_batch=1024, updates=10_000)
    rows = scale(work, Cluster(V100, 1, 8, price=2.0))
    assert [row.ranks for row in rows] == list(COUNTS)
    ran = [row.plan for row in rows if row.plan is not None]
    assert len(ran) == 11
    assert all(later.hours < earlier.hours for earlier, later in pairwise(ran[:6]))
    assert rows[0].efficiency == 1
    assert rows[-1].efficiency < 0.5
    assert ran[-1].work.micro_batch == 1
    assert ran[3].cost == pytest.approx(2 * ran[3].device_hours)
    assert ran[3].kilowatt_hours == pytest.approx(0.3 * ran[3].device_hours)
    said = " ".join(limits(work, rows))
    assert "less than half of the devices' time is useful" in said
    assert "1,024 windows are at most 1,024 ranks" in said
    assert "32 lanes in 8 shards" in said


def test_a_batch_that_does_not_divide_is_named():
    rows = scale(planned_run(global_batch=24), Cluster(V100, 1, 8))
    assert [row.ranks for row in rows if row.plan is not None] == [1, 2, 4, 8]
    assert any("global_batch 24 does not divide" in sentence for sentence in limits(planned_run(global_batch=24), rows))
    assert on_ranks(planned_run(global_batch=24), 16) is None


def test_the_modes_of_a_teacher_are_compared_and_the_cheapest_is_named():
    work = planned_run(ranks=4, updates=1000)
    cluster = Cluster(H100, 1, 4)
    rows = compare_modes(work, cluster)
    by = {row.mode: row for row in rows}
    assert list(by) == ["replicated", "zero3", "tensor_parallel", "cached"]
    assert by["zero3"].device_hours > by["replicated"].device_hours
    assert by["cached"].disk == cache_bytes(work) == 1000 * 64 * S * D * 4
    assert cheapest(rows).mode == "replicated"  # one run does not pay for its cache
    assert any("cheaper from run 2 on" in sentence for sentence in crossovers(work, rows, cluster))
    small = Cluster(V100.model_copy(update={"memory_gb": by["zero3"].plan.fit.needed / 0.94 / 1e9}), 1, 4)
    assert cheapest(compare_modes(work, small)).mode != "replicated"
    several = replace(work, teachers=(replace(work.teachers[0], states=3),))
    assert {row.mode: row.refused for row in compare_modes(several, cluster)}["cached"]
    assert {row.mode: row.refused for row in compare_modes(planned_run(ranks=8), Cluster(H100, 1, 8))}["tensor_parallel"]
    assert compare_modes(replace(work, teachers=()), cluster) == []


def test_a_plan_says_whether_it_fits_and_the_largest_micro_batch():
    plan = plan_run(planned_run(global_batch=4096, micro_batch=1024), Cluster(V100, 1, 1))
    assert not plan.fit.fits
    assert plan.largest_micro_batch is not None
    assert plan.largest_micro_batch < 1024
    assert plan.hours == pytest.approx(1000 * plan.update_seconds / 3600)
    assert 0 < plan.utilisation < 0.3  # V100: what is stated, and collectives and steps


def test_a_device_in_a_file_is_the_device_that_was_written(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(device_text(V100))
    assert device_of(str(path)) == V100
    assert all(device.source for device in DEVICES.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\n", r"own\.yaml: tflops: field required; see docs/planning\.md"),
        ("name: x\ntflops: {fp32: -1}\n", r"own\.yaml: tflops\.fp32: input should be greater than 0, got -1"),
        ("[1]", r"expected keys and values, got list"),
    ],
)
def test_a_device_that_is_not_one_is_refused_in_one_line(tmp_path, text: str, said: str):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(LaunchError, match=said):
        device_of(str(tmp_path / "own.yaml"))


def test_a_name_that_is_no_device_is_refused():
    with pytest.raises(LaunchError, match=r"--gpu b200: expected one of h100, a100, v100, l4, cpu or a file, got neither; correct it"):
        device_of("b200")
    assert isinstance(device_of("l4"), Device)


def test_attention_by_document_costs_what_its_documents_are_long():
    table = {128: (0.3, 0.0, 0.5, 0.0), 512: (0.1, 0.0, 0.2, 0.0)}
    device = measured_device(attention={"fp32 sdpa": table, "fp32 documents": table})
    whole = planned_run()
    short = replace(whole, attention="documents", data=replace(whole.data, document_tokens=32))
    forward = [compute_seconds(one, device)["forward"] for one in (whole, replace(short, window=128), replace(whole, window=320))]
    assert forward[1] == forward[0]  # nothing shorter was measured
    positions, heads = 64, DISTILBERT.layers * DISTILBERT.heads
    assert compute_seconds(replace(whole, window=1024), device)["forward"] - compute_seconds(
        replace(whole, window=1024), measured_device(attention={"fp32 sdpa": {512: (0.0, 0.0, 0.0, 0.0)}})
    )["forward"] == pytest.approx(positions * 1024 * heads * 1e-9 * 2 * 512 * 0.1)
