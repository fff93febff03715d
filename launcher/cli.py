"""`stillhouse VERB`: the door for people. A verb's module is imported only when it is called, so that the others answer at once."""

import argparse
import os
import sys
from contextlib import suppress
from importlib import import_module

from launcher.process import early_signals

MODULES = {
    "demo": "launcher.demo.demo",
    "doctor": "launcher.doctor.doctor",
    "train": "launcher.run",
    "task": "launcher.run",
    "classify": "launcher.retention.classify",
    "retention": "launcher.retention.retention",
    "config": "launcher.config.presets",
    "student": "launcher.evaluation.student",
    "evaluate": "launcher.evaluation.evaluate",
    "bench": "launcher.benchmarks.bench",
    "compare": "launcher.comparison.compare",
    "chain": "launcher.comparison.chain",
    "cache": "launcher.corpus.teacher_cache",
    "layers": "launcher.evaluation.layers",
    "shards": "launcher.corpus.shards",
    "vocabulary": "launcher.corpus.prune_vocabulary",
    "plot": "launcher.reporting.curves",
    "report": "launcher.run_page.write",
    "watch": "launcher.run_page.watch",
    "plan": "launcher.doctor.plan",
    "completion": "launcher.config.completion",
    "push": "launcher.deployment.push",
    "export": "launcher.deployment.export",
    "predict": "launcher.deployment.prediction.predict",
    "calibrate": "launcher.deployment.prediction.calibrate",
    "latency": "launcher.deployment.timing.latency",
    "advise": "launcher.advice.advise",
    "wandb-replay": "launcher.reporting.wandb_replay",
    "dashboard": "launcher.dashboard.dashboard",
}
TASK_MODULES = {"train": "launcher.run", "score": "launcher.deployment.score", "data": "launcher.tasks.data"}
READ_A_CONFIGURATION = ("cache", "layers")  # `train` does so itself: launcher/run.py is a door of its own


def main() -> None:
    """The command's door. Without a verb it prints the help."""
    early_signals.catch()  # before the other imports, in which Ctrl-C would be a traceback
    from launcher.commands.parser import parser  # noqa: PLC0415
    from launcher.process.error_exit import guarded  # noqa: PLC0415

    if len(sys.argv) == 1:
        parser().print_help()
        sys.exit(0)
    code = guarded(_dispatch, parser().parse_args())
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    with suppress(OSError):  # nobody reads any more, or a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # the interpreter's own end may abort one of several ranks: see kd.distributed.process_group.leave


def _dispatch(arguments: argparse.Namespace) -> int:
    """Run the chosen verb; its exit code."""
    module = MODULES[arguments.verb]
    if arguments.verb in READ_A_CONFIGURATION:  # their modules import torch: mistakes are found before
        from launcher.config.load import load_config  # noqa: PLC0415
        from launcher.planning.light_checks import check_inputs  # noqa: PLC0415
        from launcher.process.rank_environment import rank_and_world  # noqa: PLC0415

        arguments.corpus = check_inputs(load_config(arguments.config, arguments.settings), rank_and_world()[1])
    if arguments.verb == "task":
        module = TASK_MODULES[arguments.task_verb]
    if arguments.verb == "plan" and arguments.calibrate:
        module = "launcher.benchmarks.calibrate"
    if arguments.verb in ("compare", "chain"):
        from launcher.comparison import light_checks  # noqa: PLC0415

        check = light_checks.check_comparisons if arguments.verb == "compare" else light_checks.check_chain
        check(arguments)
    if getattr(arguments, "shards_verb", None) == "build":
        from launcher.process.model_hub import require_model  # noqa: PLC0415

        require_model("--tokenizer", arguments.tokenizer)
    if arguments.verb == "doctor" and arguments.run is not None:
        module = "launcher.doctor.run_health"
    action = import_module(module).run
    if module != "launcher.run":  # a run catches signals itself once it has something to save
        early_signals.release()
    return int(action(arguments))


if __name__ == "__main__":
    main()
