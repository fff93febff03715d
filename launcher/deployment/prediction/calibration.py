"""The calibration of a model's scores, stored in its folder: stillhouse.json of an export, calibration.json of a Hugging Face folder.

It belongs to the weights that it was measured on. A folder whose weights have changed is refused.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kd.export.files import CARD
from launcher.deployment.folder import RECORD, is_exported, read_exported, sealed
from launcher.errors import LaunchError
from stillhouse.errors import one_line
from stillhouse.files import sha256_of_file, write_atomically

FILE = "calibration.json"
KEY = "calibration"
HEADING = "## Calibration"


@dataclass(frozen=True)
class Calibration:
    """temperature: logits are divided by it. thresholds: of several labels by name; None for other tasks.

    error_before, error_after: expected calibration error on `data`, on which the temperature was chosen. error_other_half: after, where
    each half of the rows got the temperature of the other half. metric: of the labels that the thresholds decide, likewise.
    """

    temperature: float
    thresholds: dict[str, float] | None
    data: str
    error_before: float
    error_after: float
    error_other_half: float
    metric: str | None
    metric_before: float | None
    metric_after: float | None
    metric_other_half: float | None
    machine: str
    command: str

    @property
    def lines(self) -> list[str]:
        """The figures in words."""
        errors = f"{self.error_before:.4f} before, {self.error_after:.4f} after"
        made = [
            f"temperature {self.temperature:.4f}, chosen on {self.data}",
            f"expected calibration error: {errors}, {self.error_other_half:.4f} where each half got the other half's temperature",
        ]
        if self.thresholds is not None:
            made.append(f"thresholds: {', '.join(f'{name} {value:.4f}' for name, value in self.thresholds.items())}")
            figures = f"{self.metric_before:.4f} before, {self.metric_after:.4f} after"
            made.append(f"{self.metric}: {figures}, {self.metric_other_half:.4f} where each half got the other half's thresholds")
        return made


def read_calibration(path: str) -> Calibration:
    """The calibration of a model folder. Raises LaunchError where there is none, and where it is of other weights."""
    advice = f"run: stillhouse calibrate {path} --task-config …"
    folder = Path(path)
    place = folder / (RECORD if is_exported(folder) else FILE)
    try:
        content = read_exported(folder).record.get(KEY) if is_exported(folder) else json.loads(place.read_text(encoding="utf-8"))
        if content is None:
            raise LaunchError(f"{path}: expected a calibrated model, got none; {advice}")
        files = content.pop("files", {})
        calibration = Calibration(**content)
    except FileNotFoundError:
        raise LaunchError(f"{path}: expected a calibrated model, got none; {advice}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LaunchError(f"{place}: expected a calibration, got {one_line(error)}; {advice}") from error
    for name, digest in files.items():
        if not (folder / name).is_file() or sha256_of_file(folder / name) != digest:
            raise LaunchError(f"{place}: expected the weights that were calibrated, got another {name}; {advice}")
    return calibration


def write_calibration(path: str, calibration: Calibration) -> Path:
    """Store a calibration in a model folder, and a section with it in its README. The file that has it is returned."""
    folder = Path(path)
    content: dict[str, Any] = asdict(calibration)
    if is_exported(folder):
        place = folder / RECORD
        record = json.loads(place.read_text(encoding="utf-8"))
        write_atomically(place, sealed(record | {KEY: content}))
    else:
        place = folder / FILE
        content["files"] = {file.name: sha256_of_file(file) for file in sorted(folder.glob("*.safetensors"))}
        write_atomically(place, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if (folder / CARD).is_file():
        write_atomically(folder / CARD, _with_section((folder / CARD).read_text(encoding="utf-8"), section(calibration)))
    return place


def section(calibration: Calibration) -> str:
    """The section of a README: the figures, and the lines of Python that apply them to logits."""
    shares = f"numpy.exp(logits / {calibration.temperature:.6g})"
    code = [f"shares = {shares}", "shares = shares / shares.sum(-1, keepdims=True)"]
    if calibration.thresholds is not None:
        code = [f"shares = 1 / (1 + numpy.exp(-logits / {calibration.temperature:.6g}))", f"thresholds = {calibration.thresholds!r}"]
    figures = [f"- {line}" for line in calibration.lines] + [f"- measured on {calibration.machine}", f"- `{calibration.command}`"]
    return "\n".join([HEADING, "", *figures, "", "```python", "# logits: of one text, such as outputs[0][0] above", *code, "```", ""])


def _with_section(text: str, new: str) -> str:
    """The text with the section in the place of an earlier one, or at the end."""
    before, found, after = text.partition(f"{HEADING}\n")
    _, heading, rest = after.partition("\n## ") if found else ("", "", "")
    return f"{before.rstrip()}\n\n{new}" + (f"\n## {rest}" if heading else "")
