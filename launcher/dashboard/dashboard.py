"""`stillhouse dashboard`: the project's workspace and comparison report on W&B, or their specification as JSON."""

import argparse
import json
from pathlib import Path

from launcher.dashboard.workspaces import save, specification
from launcher.errors import LaunchError
from stillhouse.files import write_atomically


def run(arguments: argparse.Namespace) -> int:
    """Build both on the server, or write their specification without it."""
    if not arguments.dry_run and arguments.spec is None:
        save(arguments.project, arguments.entity, print)
        return 0
    text = json.dumps(specification(arguments.project, arguments.entity), indent=1) + "\n"
    if arguments.spec is None:
        print(text, end="")
        return 0
    path = Path(arguments.spec)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise LaunchError(f"{path}: expected to write the specification, got {error.strerror}; choose another --spec") from None
    print(path)
    return 0
