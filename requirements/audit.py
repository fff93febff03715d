"""What the index says against the pinned versions: `python requirements/audit.py`, which CI runs.

Each sha256 in lock.txt, deepspeed.txt and triton.txt must be that of a file which the index lists and which its owners have not yanked
(PEP 592, PEP 691), as they do with versions that have a grave defect or a hole. Not a list of vulnerabilities: those are kept by services
that a machine with a package index alone cannot ask.
Prints one line a finding, exit code 1 if there is any; 2 if the index did not answer.
"""

import json
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
INDEX = "https://pypi.org/simple"
PIN = re.compile(r"^([\w.-]+)==([\w.]+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def files_of(name: str) -> dict[str, dict[str, object]]:
    """sha256: what the index says of that file of a project."""
    request = urllib.request.Request(f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return {file["hashes"].get("sha256", ""): file for file in json.load(answer)["files"]}


def findings(name: str, version: str, hashes: list[str], files: dict[str, dict[str, object]]) -> list[str]:
    """One line for each pinned file that is gone or yanked."""
    found = []
    for digest in hashes:
        file = files.get(digest)
        if file is None:
            found.append(f"{name}=={version}: expected a file of sha256 {digest[:12]}… at the index, got none; run requirements/lock.py")
        elif yanked := file.get("yanked"):
            reason = f": {yanked}" if isinstance(yanked, str) else ""
            found.append(f"{name}=={version}: expected {file['filename']} to stand, got yanked{reason}; move to another version")
    return found


def main() -> int:
    """The command's door."""
    text = "".join((HERE / file).read_text(encoding="utf-8") for file in ("lock.txt", "deepspeed.txt", "triton.txt"))
    pins = [(name, version, re.findall(r"[0-9a-f]{64}", rest)) for name, version, rest in PIN.findall(text)]
    try:
        with ThreadPoolExecutor(8) as pool:
            listed = list(pool.map(files_of, [name for name, _, _ in pins]))
    except (OSError, ValueError, KeyError) as error:
        print(f"{INDEX}: expected its lists of files, got {error}; the pins were not audited", file=sys.stderr)
        return 2
    found = [line for pin, files in zip(pins, listed, strict=True) for line in findings(*pin, files)]
    print("\n".join(found) or f"{len(pins)} pinned versions: every file stands at the index, none is yanked")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
