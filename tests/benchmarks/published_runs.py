"""Plans of published runs beside the hours that their papers give.

    python tests/benchmarks/published_runs.py        (seconds; prints a table)

DistilBERT: Sanh et al. 2019, arXiv:1910.01108: 8 V100 of 16 GB, about 90 hours, Wikipedia and BookCorpus read three times (4.3 billion
tokens each time are assumed). Ettin: Weller et al. 2025, arXiv:2507.11412: 4 H100, 2 trillion tokens in 141 (17M) to 2,170 hours (1B).
ModernBERT-base: Warner et al. 2024, arXiv:2412.13663: 8 H100, 1.7 trillion tokens in 194 hours.
"""

from launcher.planning.cost.activations import closed_form
from launcher.planning.cost.run_plan import Cluster, RunPlan, plan_run
from launcher.planning.cost.workload import DataWork, ModelSize, TeacherWork, Workload
from launcher.planning.devices.devices import DEVICES


def bert(layers: int, width: int, inner: int, vocabulary: int, gated: bool = False, positions: int = 512) -> ModelSize:
    """The sizes of an encoder. gated: the first map of the feed-forward part is twice as wide."""
    layer = 4 * width**2 + (3 if gated else 2) * width * inner
    parameters = layers * layer + (vocabulary + positions) * width
    return ModelSize(layers, width, inner, width // 64, vocabulary, parameters, layers * layer, layers * layer, vocabulary * width)


def work(student: ModelSize, teachers: tuple[TeacherWork, ...], precision: str, ranks: int, window: int, **more: object) -> Workload:
    """A run of one epoch in which half of a micro-batch of 64k tokens is a rank's share."""
    values: dict[str, object] = {
        "student": student,
        "trainable": student.parameters,
        "projections": 0,
        "teachers": teachers,
        "ranks": ranks,
        "precision": precision,
        "stage": 1,
        "checkpointing": False,
        "attention": "sdpa",
        "window": window,
        "masked": 0.15,
        "all_logits": False,
        "logit_terms": 1,
        "logit_copies": 4,
        "logit_teachers": 0,
        "chunk_tokens": 1024,
        "tile_tokens": 256,
        "state_pairs": 0,
        "relation_heads": 0,
        "activations": closed_form(student.layers, student.width, student.inner, student.heads, window, "sdpa", precision),
        "data": DataWork(filled=1.0),
    }
    return Workload(**(values | more))  # type: ignore[arg-type]


def published() -> dict[str, tuple[RunPlan, float]]:
    """Plan and published hours by name."""
    distilbert = work(
        bert(6, 768, 3072, 30522),
        (TeacherWork(bert(12, 768, 3072, 30522), "replicated", "fp32", 109_000_000, 1),),
        "fp32",
        8,
        512,
        micro_batch=5,
        global_batch=2000,
        updates=round(3 * 4.3e9 / 512 / 2000),
        all_logits=True,
        logit_terms=2,
        logit_copies=10,
        logit_teachers=1,
        state_pairs=1,
    )
    modern = {"precision": "bf16", "teachers": (), "window": 1024, "masked": 0.3}
    long = {"global_batch": 4608, "micro_batch": 96}
    base = work(bert(22, 768, 1152, 50368, gated=True), ranks=8, updates=round(1.7e12 / 1024 / 4608), **modern, **long)  # type: ignore[arg-type]
    two = round(2e12 / 1024 / 4608)
    ettin = {
        "Ettin 17M": work(bert(7, 256, 384, 50368, gated=True), ranks=4, updates=two, **modern, **long),  # type: ignore[arg-type]
        "Ettin 1B": work(bert(28, 1792, 3840, 50368, gated=True), ranks=4, updates=two, **modern, **(long | {"micro_batch": 32})),  # type: ignore[arg-type]
    }
    h100 = DEVICES["h100"]
    return {
        "DistilBERT": (plan_run(distilbert, Cluster(DEVICES["v100"], 1, 8)), 90.0),
        "ModernBERT-base": (plan_run(base, Cluster(h100, 1, 8)), 194.0),
        **{name: (plan_run(one, Cluster(h100, 1, 4)), hours) for (name, one), hours in zip(ettin.items(), (141.0, 2170.0), strict=True)},
    }


def main() -> None:
    """Print the table."""
    print(f"{'run':<17}{'devices':<20}{'plan h':>8}{'paper h':>9}{'plan / paper':>14}{'peak that the paper reached':>29}")
    for name, (plan, hours) in published().items():
        reached = (plan.utilisation or 0.0) * plan.hours / hours
        devices = f"{plan.cluster.ranks} {plan.cluster.device.name}"
        print(f"{name:<17}{devices:<20}{plan.hours:>8.0f}{hours:>9.0f}{plan.hours / hours:>14.2f}{reached:>29.0%}")


if __name__ == "__main__":
    main()
