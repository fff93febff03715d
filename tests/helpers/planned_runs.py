"""A run of a known size for the tests of the planner: BERT-base teaches DistilBERT."""

from dataclasses import replace

from launcher.planning.cost.activations import closed_form
from launcher.planning.cost.workload import DataWork, ModelSize, TeacherWork, Workload

D, F, V = 768, 3072, 30522
LAYER = 4 * D * D + 2 * D * F
BERT = ModelSize(12, D, F, 12, V, 109_514_298, 12 * LAYER, 85_054_464, V * D)
DISTILBERT = ModelSize(6, D, F, 12, V, 66_985_530, 6 * LAYER, 42_527_232, V * D)


def planned_run(mode: str = "replicated", held: int = BERT.parameters, **changes: object) -> Workload:
    """8 windows of 128 a micro-batch, 64 an update, on one rank in fp32. mode: of the teacher."""
    precision = str(changes.get("precision", "fp32"))
    base = Workload(
        student=DISTILBERT,
        trainable=DISTILBERT.parameters,
        projections=0,
        teachers=(TeacherWork(BERT, mode, precision, held),),
        ranks=1,
        precision=precision,
        stage=1,
        checkpointing=False,
        attention="sdpa",
        window=128,
        micro_batch=8,
        global_batch=64,
        updates=1000,
        masked=0.15,
        all_logits=True,
        logit_terms=2,
        logit_copies=10,
        logit_teachers=1,
        chunk_tokens=512,
        tile_tokens=16,
        state_pairs=1,
        relation_heads=0,
        activations=closed_form(6, D, F, 12, 128, "sdpa", precision),
        data=DataWork(windows_per_epoch=10_000, shards=8, lanes=32, filled=1.0),
        evaluate_batch=32,
    )
    return replace(base, **changes)  # type: ignore[arg-type]
