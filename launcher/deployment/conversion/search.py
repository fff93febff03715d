"""`--precision auto`: parts stay in fp32, the most error for each byte first, until the loss is within the limit.

The choice is made on one half of the compared rows. The loss that is reported is that of the other half.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from kd.export.onnx_model import OnnxModel
from kd.export.quantise.scheme import Scheme
from kd.export.runtime import Session
from launcher.deployment.conversion.graph import Graph
from launcher.deployment.conversion.parts import parts_of
from launcher.deployment.conversion.quality import Comparison
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tables import Column, print_table


@dataclass(frozen=True)
class Sensitivity:
    """A part at the scheme's precision with all others in fp32.

    error: mean squared difference of the logits, as a share of their variance. bytes: saved by quantising it.
    drop: points lost with this part and all earlier ones in fp32; None where the search ended before.
    """

    part: str
    error: float
    bytes: int
    drop: float | None = None


@dataclass(frozen=True)
class Found:
    """The search's result. drop_of_all: points lost with every part at the scheme's precision. parts: in the order of the search.

    data: the rows that the choice was made on.
    """

    onnx: OnnxModel
    session: Session
    precisions: dict[str, str]
    drop_of_all: float
    parts: tuple[Sensitivity, ...]
    data: str

    @property
    def record(self) -> dict[str, Any]:
        """The search, for stillhouse.json."""
        return {"chosen_on": self.data, "points_lost_without_fp32_parts": self.drop_of_all, "parts": [asdict(part) for part in self.parts]}


def search(graph: Graph, scheme: Scheme, comparison: Comparison, kept: frozenset[str], max_drop: float) -> Found:
    """The smallest set of fp32 parts, in order of error for each byte, that keeps the loss within max_drop points. kept: fp32 anyway."""
    made = graph.at(scheme, kept)
    before = comparison.quality(made[1], "choice")
    lost = before.drop
    if lost <= max_drop:
        say(f"  auto: {lost:.2f} points lost with every part quantised, on {before.data}, within {max_drop:g}; no part stays in fp32")
        return Found(*made, lost, (), before.data)
    parts = parts_of(graph.model.encoder)
    measured = [_measured(graph, scheme, comparison, parts, part, kept) for part in parts]
    order = sorted((one for one in measured if one.bytes > 0), key=lambda one: one.error / one.bytes, reverse=True)
    drop, done = lost, []
    for one in order:
        if drop > max_drop:
            kept |= parts[one.part]
            made = graph.at(scheme, kept)
            drop = comparison.quality(made[1], "choice").drop
            one = replace(one, drop=drop)
        done.append(one)
    found = Found(*made, lost, tuple(done), before.data)
    _show(found)
    return found


def _measured(
    graph: Graph, scheme: Scheme, comparison: Comparison, parts: dict[str, frozenset[str]], part: str, kept: frozenset[str]
) -> Sensitivity:
    others = kept.union(*(weights for name, weights in parts.items() if name != part))
    onnx, session, _ = graph.at(scheme, others)
    return Sensitivity(part, comparison.error(session), graph.bytes - onnx.size)


def _show(found: Found) -> None:
    rows = found.parts
    say(f"  auto: {found.drop_of_all:.2f} points lost with every part quantised, on {found.data}")
    columns = [
        Column("error", [f"{100 * row.error:.3f} %" for row in rows], "squared difference of logits, of their variance, this part alone"),
        Column("saves", [f"{row.bytes / 1e6:.2f} MB" for row in rows], "bytes that quantising it saves"),
        Column("kept", ["quantised" if row.drop is None else "fp32" for row in rows]),
        Column("lost", ["" if row.drop is None else f"{row.drop:.2f}" for row in rows], "points, with this part and those above in fp32"),
    ]
    print_table(PipeSafeConsole(), Column("part", [row.part for row in rows], justify="left"), columns)
