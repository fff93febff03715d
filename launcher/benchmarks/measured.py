"""One case of a benchmark in this process: updates of the trainer and of the plain loop in turn, on the same batches."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from data_shards.corpus import Corpus
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.distributed.rank_progress import RankProgress
from kd.kernels import fp32_products, host_memory
from kd.models.attention.attention_choice import of_version_0
from kd.models.loading import load_mlm
from kd.training.trainer import Trainer
from kd.training.update_report import UpdateReport
from launcher.benchmarks.cases import Case
from launcher.benchmarks.machine import BUSY
from launcher.benchmarks.peer import PeerLoop
from launcher.benchmarks.plain import PlainLoop
from launcher.benchmarks.rates import gemm_rate
from launcher.config.derived import precision_of
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.planning.cost.from_config import work_of_config
from launcher.planning.cost.operations import flops
from launcher.planning.devices.gemm import DTYPES
from launcher.planning.devices.this_device import this_device
from launcher.reporting.meter import peak_memory_gb
from launcher.reporting.train_line import shares_of_time
from launcher.training.batches import BatchLoader
from launcher.training.build import build

CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Figures:
    """The figures of one case. Seconds are of one update; CPU seconds where one thread computes.

    ratio: plain / trainer seconds, the median over pairs of updates; low, high: the quartiles. memory: bytes above those before the
    update, at its peak. utilisation: the trainer's FLOP/s over a matrix product's, measured in between; None: not known.
    loss_difference: the largest relative one of the pairs. peer_ratio: peer / trainer seconds per real token.
    """

    case: str
    precision: str
    attention: str
    updates: int
    tokens: float
    trainer_seconds: float
    plain_seconds: float
    ratio: float
    low: float
    high: float
    trainer_memory: float
    plain_memory: float
    flops: float | None
    gemm_tflops: float
    utilisation: float | None
    time: dict[str, float]
    stream_tokens_per_second: float
    loss_difference: float
    wall_per_cpu: float
    peer_seconds: float | None = None
    peer_ratio: float | None = None
    peer_memory: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Of the trainer."""
        return self.tokens / self.trainer_seconds

    @property
    def is_reliable(self) -> bool:
        """False: other processes had the cores."""
        return self.wall_per_cpu <= BUSY

    @property
    def row(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self) | {"tokens_per_second": self.tokens_per_second, "reliable": self.is_reliable}


@dataclass(frozen=True)
class _Pair:
    """One update of the trainer and of the plain loop. busy: seconds of the trainer's phases."""

    trainer: "_Timed"
    plain: "_Timed"
    peer: "_Timed | None"
    tokens: int
    busy: dict[str, float]
    gemm_tflops: float

    @property
    def loss_difference(self) -> float:
        """Relative."""
        return abs(float(self.trainer.result.loss) - self.plain.result) / max(abs(self.plain.result), 1e-9)


def measure(case: Case, updates: int, warm: int, peer: Path | None = None) -> Figures:
    """Run `warm` updates, then time `updates` pairs. The process group is up. Raises what the start of the run would raise."""
    config = case.config
    if config.teacher_mixing != "mean" or any(member.mode != "replicated" for member in config.members.values()):
        raise LaunchError("bench: expected teachers with mode replicated that all teach, got others; add teacher.mode=replicated")
    corpus = Corpus.open(config.data.shards, config.data.cache_folder)
    precision = precision_of(config)
    attention, (*pairs, last) = _pairs(case, corpus, updates, warm, peer)
    gc.collect()  # an engine and its module hold each other
    ratios = [pair.plain.seconds / pair.trainer.seconds for pair in pairs]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    seconds, rate = _median(pair.trainer.seconds for pair in pairs), _median(pair.gemm_tflops for pair in pairs)
    count = _flops(config, precision)
    both = [timed for pair in pairs for timed in (pair.trainer, pair.plain)]
    alone = torch.get_num_threads() == 1 and process_group.device().type == "cpu"
    return Figures(
        case=case.name,
        precision=precision,
        attention=attention,
        updates=len(pairs),
        tokens=sum(pair.tokens for pair in pairs) / len(pairs),
        trainer_seconds=seconds,
        plain_seconds=_median(pair.plain.seconds for pair in pairs),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        trainer_memory=last.trainer.memory,
        plain_memory=last.plain.memory,
        flops=count,
        gemm_tflops=rate,
        utilisation=None if count is None else count / seconds / (rate * 1e12),
        time=shares_of_time({phase: sum(pair.busy.get(phase, 0.0) for pair in pairs) for phase in pairs[0].busy}),
        stream_tokens_per_second=_stream_rate(Stream(corpus, "train", config.data.stream, config.train.global_batch)),
        loss_difference=max(pair.loss_difference for pair in pairs),
        wall_per_cpu=sum(one.wall for one in both) / sum(one.cpu for one in both) if alone else 1.0,
        **_of_peer(pairs, last),
    )


def _of_peer(pairs: list[_Pair], last: _Pair) -> dict[str, float]:
    """The figures of the peer, if there is one."""
    timed = [(pair.peer, pair.trainer) for pair in pairs if pair.peer is not None]
    if not timed or last.peer is None:
        return {}
    return {
        "peer_seconds": _median(its.seconds for its, _ in timed),
        "peer_ratio": _median(its.seconds / mine.seconds for its, mine in timed),
        "peer_memory": last.peer.memory,
    }


def _pairs(case: Case, corpus: Corpus, updates: int, warm: int, peer: Path | None) -> tuple[str, list[_Pair]]:
    """The trainer's attention; the timed pairs of updates, and one more for memory.

    Both sides begin with the same weights and see the same batches.
    The other loops run with the C library's own limits on free memory, and the trainer's memory is allocated again after them. In the
    last pair, each update begins without free memory that earlier ones left to the process. That costs time.
    """
    config, progress, device = case.config, RankProgress(), process_group.device()
    parts = build(config, corpus, None, progress)
    trainer = parts.trainer
    plain = PlainLoop(
        trainer.snapshot(),
        [load_mlm(member.model).to(device) for member in config.members.values()],
        trainer.teachers.weights,
        trainer.objective.at(0, parts.updates),
        trainer.vocabulary,
        trainer.phase.optimizer,
        DTYPES[parts.precision],
        config.train.clip,
        config.train.seed,
    )
    plain.student.use_attention(of_version_0(device.type, parts.precision, config.row_tokens))  # torch's own
    other = None
    if peer is not None:
        special = {name: getattr(corpus.manifest, f"{name[:-6]}_id") for name in ("pad_token", "mask_token", "cls_token", "sep_token")}
        counts = torch.from_numpy(corpus.token_statistics.counts.astype("float64"))
        teacher = load_mlm(next(iter(config.members.values())).model).to(device)
        other = PeerLoop(peer, config, trainer.snapshot().hf, teacher.hf, special, counts)
    loader = BatchLoader(parts.stream, config.train, rank=0, world=1, update=0, windows=0, to_batch=parts.to_batch)
    pairs, held = [], 0.0
    try:
        for number in range(warm + updates + 1):
            timed = partial(_timed, empties=number == warm + updates)
            batches, rate = loader.next_update(), trainer.phase.learning_rate(trainer.done)
            mine = timed(partial(_update, trainer, progress, number + 1, batches))
            progress.enter("reporting")
            busy = dict(progress.busy)
            held = max(held, mine.memory)
            with fp32_products.torchs_own(), host_memory.as_by_default():
                theirs = timed(partial(plain.update, [batch.to(device) for batch in batches], rate))
                its = None if other is None else timed(partial(other.update, [batch.to(device) for batch in batches]))
            if device.type == "cpu":
                _allocate(held)
            gemm = gemm_rate(parts.precision, trainer.student.width, device)
            pairs.append(_Pair(mine, theirs, its, mine.result.tokens, busy, gemm))
    finally:
        loader.close()
        trainer.engine.close()
    return parts.attention.student, pairs[warm:]


def _allocate(size: float, block: int = 64 << 20) -> None:
    """Free memory of so many bytes is in this process afterwards, as an update of a run finds it."""
    blocks = [torch.ones(block, dtype=torch.uint8) for _ in range(int(size) // block + 1)]
    blocks.clear()


def _update(trainer: Trainer, progress: RankProgress, number: int, batches: Sequence[Batch]) -> UpdateReport:
    """One update of the trainer, with its time by part from now on."""
    progress.begin(number, "counting")
    progress.busy = {}
    return trainer.update(batches)


@dataclass(frozen=True)
class _Timed:
    result: Any
    seconds: float
    wall: float
    cpu: float
    memory: float


def _timed(action: Callable[[], Any], empties: bool = False) -> _Timed:
    """An action with its time, and its peak memory above what was held before. empties: free memory goes back to the system first."""
    device = process_group.device()
    gc.collect()
    if empties:
        host_memory.give_back()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e9
    else:
        before = psutil.Process().memory_info().rss / 1e9
        if CLEAR.exists():
            CLEAR.write_text("5", encoding="ascii")  # the peak starts at what is held now
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return _Timed(result, cpu if alone else wall, wall, cpu, max(0.0, peak_memory_gb() - before) * 1e9)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _stream_rate(stream: Stream, updates: int = 30) -> float:
    """Real tokens per second of the stream alone: shards to masked batches."""
    tokens, started, rows = 0, time.process_time(), stream.global_batch
    for update in range(updates):
        batch = stream.batch(update * rows, 0, 1, rows, 0)
        tokens += int((batch.segments > 0).sum())
    return tokens / max(time.process_time() - started, 1e-9)


def _flops(config: RunConfig, precision: str) -> float | None:
    """FLOPs of one update as the planner counts them; None where it cannot."""
    known = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
    try:
        return flops(work_of_config(known, 1, this_device()).work).total
    except LaunchError:
        return None
