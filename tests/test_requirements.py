"""The pinned environment is one that pyproject.toml allows, and every pin but torch's has a hash."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PINS = {
    canonicalize_name(name): (version, rest)
    for file in ("lock.txt", "deepspeed.txt", "torch.txt")
    for name, version, rest in re.findall(
        r"^([\w.-]+)==([\w.]+)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", (ROOT / "requirements" / file).read_text(), re.M
    )
}


def test_every_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["build-system"]["requires"],
    ]
    for line in wanted:
        requirement = Requirement(line)
        version, _ = PINS[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}: pinned to {version}; run requirements/lock.py"


def test_every_pin_but_torchs_has_a_hash():
    assert [name for name, (_, hashes) in PINS.items() if not hashes] == ["torch"]
