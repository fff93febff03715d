"""A rank that is much slower than the others: found from the seconds that each works alone, between two report lines."""

import statistics
from dataclasses import dataclass

import torch

from kd.distributed import process_group
from kd.distributed.rank_progress import BUSY

TIMES = 3.0  # as slow as the others' median
AT_LEAST_SECONDS = 1.0  # more than that median: below, it costs nothing


@dataclass(frozen=True)
class Straggler:
    """The slowest rank. times: its seconds over the others' median; phase: where most of the difference lies."""

    rank: int
    times: float
    phase: str
    seconds: float
    median: float

    def sentence(self, hosts: list[str]) -> str:
        """For people; hosts: of each rank."""
        return (
            f"rank {self.rank} on {hosts[self.rank]} takes {self.times:.0f} times as long as the others: {self.seconds:.1f} s in "
            f"{self.phase} since the last line, they {self.median:.1f} s; look at that host"
        )


def straggler(seconds: list[dict[str, float]]) -> Straggler | None:
    """The rank that takes more than TIMES as long as the others' median, if there is one. seconds: of each rank, by phase."""
    totals = [sum(phases.values()) for phases in seconds]
    slowest = max(range(len(totals)), key=totals.__getitem__)
    others = [rank for rank in range(len(totals)) if rank != slowest]
    if not others:
        return None
    median = statistics.median(totals[rank] for rank in others)
    if totals[slowest] < TIMES * median or totals[slowest] < median + AT_LEAST_SECONDS:
        return None

    def usual(phase: str) -> float:
        return statistics.median(seconds[rank][phase] for rank in others)

    phase = max(seconds[slowest], key=lambda name: seconds[slowest][name] - usual(name))
    return Straggler(slowest, totals[slowest] / max(median, 1e-9), phase, seconds[slowest][phase], usual(phase))


def gather(own_seconds: dict[str, float]) -> list[dict[str, float]]:
    """Every rank's seconds by phase, on every rank. Collective."""
    table = torch.zeros(process_group.world_size(), len(BUSY), dtype=torch.float32, device=process_group.device())
    table[process_group.rank()] = torch.tensor([own_seconds[phase] for phase in BUSY])
    return [dict(zip(BUSY, row, strict=True)) for row in process_group.sum_over_ranks(table).tolist()]
