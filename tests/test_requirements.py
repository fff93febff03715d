"""The pinned environment is one that pyproject.toml allows, and every pin but torch's has a hash."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements import audit

ROOT = Path(__file__).resolve().parent.parent
PINS = {
    canonicalize_name(name): (version, rest)
    for file in ("lock.txt", "deepspeed.txt", "torch.txt", "triton.txt")
    for name, version, rest in re.findall(
        r"^([\w.-]+)==([\w.]+)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", (ROOT / "requirements" / file).read_text(), re.M
    )
}


def test_every_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *(line for extra in project["project"]["optional-dependencies"].values() for line in extra),
        *project["build-system"]["requires"],
    ]
    for line in wanted:
        requirement = Requirement(line)
        version, _ = PINS[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}: pinned to {version}; run requirements/lock.py"


def test_every_pin_but_torchs_has_a_hash():
    assert [name for name, (_, hashes) in PINS.items() if not hashes] == ["torch"]


def test_a_pinned_file_that_is_gone_or_yanked_is_a_finding():
    listed = {"a" * 64: {"filename": "x-1.whl", "yanked": False}, "b" * 64: {"filename": "x-2.whl", "yanked": "CVE-1"}}
    gone, yanked = audit.findings("x", "1", ["a" * 64, "b" * 64, "c" * 64], listed)[::-1]
    assert gone.startswith("x==1: expected a file of sha256 cccccccccccc… at the index, got none")
    assert yanked == "x==1: expected x-2.whl to stand, got yanked: CVE-1; move to another version"
