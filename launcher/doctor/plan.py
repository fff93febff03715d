"""`stillhouse plan`: memory, time, cost and disk of a run on a cluster, before anything is allocated."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from launcher.config.load import load_run
from launcher.config.run_config import AnyRunConfig, RunConfig
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.planning.cost.from_config import Planned, work_of_config
from launcher.planning.cost.picture import picture
from launcher.planning.cost.report import as_json, show
from launcher.planning.cost.run_plan import Cluster, plan_run
from launcher.planning.cost.scaling import scale
from launcher.planning.cost.teacher_modes import compare_modes
from launcher.planning.devices.devices import Device, device_of
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tasks.cost import work_of_task
from stillhouse.files import write_atomically

FORMS = (".png", ".svg")
SEVERAL = {"variants": "a comparison", "links": "a chain"}
"""Keys of files that describe several runs."""


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, or write it as JSON."""
    form = Path(arguments.plot).suffix.lower() if arguments.plot else ""
    if arguments.plot and form not in FORMS:
        raise LaunchError(f"--plot {arguments.plot}: expected a name that ends in .png or .svg, got {form or 'none'}; rename it")
    if arguments.plot and not Path(arguments.plot).absolute().parent.is_dir():
        raise LaunchError(f"--plot {arguments.plot}: expected a folder that exists, got none at {Path(arguments.plot).parent}; make it")
    if not arguments.config:
        raise LaunchError("CONFIG: expected a configuration file or --calibrate, got neither; name one: stillhouse config list")
    device = device_of(arguments.gpu)
    cluster = Cluster(device, arguments.nodes, arguments.gpus, arguments.price or 0.0)
    config = _config(arguments)
    planned = _planned(config, cluster.ranks, device, arguments.tokens)
    plan = plan_run(planned.work, cluster)
    rows, modes = scale(planned.work, cluster), compare_modes(planned.work, cluster)
    if arguments.plot:
        caption = f"{config.name} on {device.name}: {'measured rates' if device.measured else 'an estimate from a datasheet'}"
        write_atomically(Path(arguments.plot), picture(rows, caption, form[1:]))
        say(arguments.plot, sys.stderr)
    if arguments.json:
        content: dict[str, Any] = as_json(planned, plan, rows, modes)
        say(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        show(planned, plan, rows, modes, PipeSafeConsole())
    return 0


def _config(arguments: argparse.Namespace) -> AnyRunConfig:
    """The run to plan. Raises LaunchError for a file of several runs too."""
    try:
        return load_run(arguments.config, arguments.settings)
    except LaunchError as error:
        for key, kind in SEVERAL.items():
            if f"{key}: unknown key" in str(error):
                got = f"{kind} ({key})"
                raise LaunchError(f"{arguments.config}: expected the configuration of one run, got {got}; plan one of its runs") from None
        raise


def _planned(config: AnyRunConfig, ranks: int, device: Device, tokens: float | None) -> Planned:
    """The work of a run on text or on a task."""
    if isinstance(config, TaskRunConfig):
        return work_of_task(config, ranks, device, tokens)
    assert isinstance(config, RunConfig)
    return work_of_config(config, ranks, device, tokens)
