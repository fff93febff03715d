"""One run of launcher/run.py, or one verb of `stillhouse`, that counts how often it opens each file of its shards.

Usage: opened_files.py FOLDER SHARDS [VERB] WORDS …; writes {path inside SHARDS: times} to FOLDER/opened-RANK.json.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

from launcher import cli, run


def main() -> None:
    folder, shards, *words = sys.argv[1:]
    opened: Counter[str] = Counter()

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            path = os.path.abspath(arguments[0])
            if path.startswith(f"{shards}/"):
                opened[path.removeprefix(f"{shards}/")] += 1

    sys.addaudithook(count)
    sys.argv = ["launcher/run.py", *words]
    try:
        (run if words[0].startswith("-") else cli).main()
    finally:
        (Path(folder) / f"opened-{os.environ['RANK']}.json").write_text(json.dumps(opened))


if __name__ == "__main__":
    main()
