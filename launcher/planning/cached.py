"""What a plan has to know of cached teachers: whether their caches are theirs, hold what the terms ask for, and cover the run."""

from collections.abc import Sequence

from data_shards.stream.stream import Stream
from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.teacher.cached import CACHED, check_cache
from kd.teacher.hidden_state_cache import Positions
from kd.teacher.teachers import check_offers
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError


def check_caches(
    config: RunConfig, teachers: Sequence[Encoder], objectives: Sequence[Objective], precision: str, stream: Stream, windows: int
) -> None:
    """Nothing, or KdError or LaunchError, one line. teachers: on the meta device; objectives: settled; windows: that the run reads."""
    for number, (place, member) in enumerate(config.members.items()):
        if member.cache is None:
            continue
        for objective in objectives:
            check_offers(objective, number, CACHED, "all")
        header = check_cache(place, member, teachers[number], precision)
        for objective in objectives:
            check_offers(objective, number, CACHED, header.positions)
        there = header.covers.get(stream.fingerprint, 0)
        if there < windows:
            other = "" if there or not header.covers else " (it has those of another corpus, order or masking)"
            raise LaunchError(
                f"{place}.cache {member.cache}: expected the run's {windows:,} windows, got the first {there:,} of them{other}; "
                "fill it: stillhouse cache, with the same configuration"
            )


def positions_asked(objectives: Sequence[Objective], number: int) -> Positions:
    """Where terms look at teacher `number`. KdError for a term that a cached one cannot teach."""
    asking = [(objective, term) for objective in objectives for term in objective.terms if objective.asked_of(term, number)]
    for objective, _ in asking:
        check_offers(objective, number, CACHED, "all")
    return "masked" if all(getattr(term, "positions", "all") == "masked" for _, term in asking) else "all"
