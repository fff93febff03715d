"""Arguments of `stillhouse plot` and `stillhouse dashboard`."""

from launcher.commands.common import RAW, Verbs

PLOT = "Draw loss by term, held-out scores, learning rate and throughput of one or several runs into a PNG."
EXAMPLE = """example:
  stillhouse plot runs/laptop runs/other --out both.png
"""


def add_plot(verbs: Verbs) -> None:
    """`stillhouse plot`."""
    plot = verbs.add_parser("plot", help="draw the curves of runs into one picture", description=PLOT, epilog=EXAMPLE, formatter_class=RAW)
    plot.add_argument("runs", nargs="+", metavar="RUN", help="run folders; several are drawn over each other")
    plot.add_argument("--out", default=None, metavar="FILE", help="the PNG to write (RUN/curves.png; curves.png for several runs)")


DASHBOARD = """Build a W&B workspace and a report that compares runs: sections for learning, teaching, speed and health. Each call makes
new ones and prints their addresses. --spec and --dry-run need neither network nor account.
"""
DASHBOARD_EXAMPLE = """examples:
  stillhouse dashboard --project stillhouse --entity my-team
  stillhouse dashboard --project stillhouse --spec dashboard.json
"""


def add_dashboard(verbs: Verbs) -> None:
    """`stillhouse dashboard`."""
    dashboard = verbs.add_parser(
        "dashboard",
        help="build the W&B workspace and report of a project",
        description=DASHBOARD,
        epilog=DASHBOARD_EXAMPLE,
        formatter_class=RAW,
    )
    dashboard.add_argument("--project", default="stillhouse", help="the W&B project, as report.project of its runs (stillhouse)")
    dashboard.add_argument("--entity", default=None, help="W&B user or team (the one of the API key)")
    dashboard.add_argument("--spec", default=None, metavar="FILE", help="write the specification as JSON instead, offline")
    dashboard.add_argument("--dry-run", action="store_true", help="print the specification as JSON instead, offline")
