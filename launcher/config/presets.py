"""`stillhouse config`: the packaged configurations, and the JSON schema of a run's YAML."""

import argparse
import json
import re
import textwrap
from pathlib import Path

from launcher.config.run_config import RunConfig
from launcher.config.task_config import TaskRunConfig
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError

FOLDERS = {
    "train --config": ".",
    "task train --config tasks/": "tasks",
    "compare": "compare",
    "compare tasks/": "compare/tasks",
    "chain": "chains",
    "retention --config": "retention",
    "train --scale": "scales",
    "train, as a W&B sweep": "sweeps",
}
SENTENCE = re.compile(r"(?<!\bal)\. (?=[A-Z`])")


def run(arguments: argparse.Namespace) -> int:
    """Print the list, one file, or the schema."""
    if arguments.config_verb == "schema":
        model = TaskRunConfig if arguments.task else RunConfig
        print(json.dumps({"title": "Stillhouse run"} | model.model_json_schema(), indent=1))
    elif arguments.config_verb == "show":
        print(find_preset(arguments.name).read_text(encoding="utf-8"), end="")
    else:
        for verb, folder in FOLDERS.items():
            print(f"stillhouse {verb}")
            for file in sorted((PACKAGED / folder).glob("*.yaml")):
                first, *more = textwrap.wrap(purpose(file), width=60)
                print(f"  {file.stem:<20}{first}", *(f"{'':<22}{line}" for line in more), sep="\n")
    return 0


def find_preset(name: str) -> Path:
    """The file of a packaged configuration. LaunchError for an unknown name."""
    files = [file for folder in FOLDERS.values() for file in sorted((PACKAGED / folder).glob("*.yaml"))]
    for file in files:
        if name in (file.stem, str(file.relative_to(PACKAGED).with_suffix(""))):
            return file
    known = ", ".join(dict.fromkeys(file.stem for file in files))
    raise LaunchError(f"config show: expected one of {known}, got {name}; see stillhouse config list")


def purpose(file: Path) -> str:
    """The first comment of a configuration file, up to the first full stop."""
    first = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    return SENTENCE.split(first)[0].rstrip(".")
