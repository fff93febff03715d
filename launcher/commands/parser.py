"""The parser of `stillhouse`: its verbs, grouped by purpose. Imports nothing heavy, so that --help answers at once."""

import argparse
from importlib import metadata

from launcher.commands import compare, completion, corpus, demo, deploy, doctor, evaluate, plot, retention, ship, task, train
from launcher.commands.common import RAW, Parser

EXAMPLES = """examples:
  stillhouse demo                                       the whole job on real text, in a quarter of an hour
  stillhouse shards build --out shards/mine --tokenizer bert-base-uncased my_texts/*.txt
  stillhouse train --config laptop data.shards=shards/mine
  stillhouse evaluate runs/laptop/student --shards shards/mine --teacher bert-base-uncased
  stillhouse push runs/laptop my-name/my-student --licence apache-2.0 --dry-run
"""
GROUPS = {
    "try": (demo.add_demo,),
    "data": (corpus.add_shards, corpus.add_vocabulary),
    "train": (doctor.add_plan, train.add_train, train.add_student, train.add_show_config, corpus.add_cache, compare.add_chain),
    "tasks": (task.add_task, retention.add_retention, retention.add_classify),
    "compare": (evaluate.add_evaluate, compare.add_compare, evaluate.add_layers, evaluate.add_bench),
    "check and report": (
        *(plot.add_watch, plot.add_report, doctor.add_doctor, plot.add_plot, doctor.add_wandb_replay),
        plot.add_dashboard,
    ),
    "ship": (ship.add_export, deploy.add_predict, deploy.add_calibrate, deploy.add_latency, deploy.add_advise),
    "publish": (ship.add_push,),
    "set up": (completion.add_completion,),
}


def parser() -> argparse.ArgumentParser:
    """Every verb and its arguments. The help lists the verbs by group."""
    top = Parser(
        prog="stillhouse", description="Distillation of transformer encoders: text or a task in, a small encoder out.", formatter_class=RAW
    )
    top.add_argument("--version", action="version", version=f"stillhouse {metadata.version('stillhouse')}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, help=argparse.SUPPRESS)
    text = []
    for group, adds in GROUPS.items():
        known = len(verbs._choices_actions)
        for add in adds:
            add(verbs)
        text.append(f"{group}:")
        text += [f"  {verb.dest:<14}{verb.help}" for verb in verbs._choices_actions[known:]]
    verbs._choices_actions.clear()  # listed above, by group
    top.usage = "stillhouse [-h] [--version] VERB …"
    top.epilog = "\n".join([*text, "", EXAMPLES])
    return top
