"""Arguments of `stillhouse compare` and `stillhouse chain`."""

from launcher.commands.common import RAW, Verbs, above_zero, add_runs, at_least

COMPARE = """Train variants of one run at equal tokens or equal time, over several seeds, and say which differences are larger than
the noise. Started again, it goes on. More: docs/comparisons.md.
"""
CHAIN = """Train a student, then a smaller one that it teaches, and so on. Started again, it goes on. More: docs/comparisons.md."""
COMPARE_EXAMPLE = """examples:
  stillhouse compare configs/compare/layers.yaml --dry-run
  stillhouse compare configs/compare/layers.yaml data.shards=shards/mine teacher.model=bert-base-uncased --budget tokens
  stillhouse compare configs/compare/*.yaml --budget time --jobs 2
  stillhouse compare tasks/rates-small data.folder=glue/MRPC student.init=bert-base-uncased
"""
CHAIN_EXAMPLE = """example:
  stillhouse chain configs/chains/assistants.yaml data.shards=shards/mine teacher.model=bert-base-uncased
"""


def add_compare(verbs: Verbs) -> None:
    """`stillhouse compare`."""
    compare = verbs.add_parser(
        "compare",
        help="variants of a run at equal tokens or time, over seeds",
        description=COMPARE,
        epilog=COMPARE_EXAMPLE,
        formatter_class=RAW,
    )
    compare.add_argument("words", nargs="+", metavar="FILE | key=value", help="comparison files; settings for all their runs")
    compare.add_argument("--budget", default="tokens", choices=("tokens", "time"), help="what every run gets the same of (tokens)")
    compare.add_argument("--amount", type=above_zero, metavar="N", help="tokens, or seconds of learning, of each run (the file's)")
    add_runs(compare, "runs/compare", "where each file's comparison gets a folder of its name")
    compare.add_argument("--report", action="store_true", help="report the runs that are done, and start nothing")
    compare.add_argument("--jobs", type=at_least(1), default=1, metavar="N", help="runs side by side (1)")


def add_chain(verbs: Verbs) -> None:
    """`stillhouse chain`."""
    chain = verbs.add_parser(
        "chain", help="runs in which each student teaches the next", description=CHAIN, epilog=CHAIN_EXAMPLE, formatter_class=RAW
    )
    chain.add_argument("words", nargs="+", metavar="FILE | key=value", help="a chain file; settings for all its runs")
    add_runs(chain, "runs/chain", "where everything goes")
