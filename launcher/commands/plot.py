"""Arguments of the verbs that show runs: `stillhouse plot`, `report`, `watch` and `dashboard`."""

from launcher.commands.common import RAW, Verbs, above_zero

PLOT = "Draw loss by term, held-out scores, learning rate and throughput of one or several runs into a PNG."
EXAMPLE = """example:
  stillhouse plot runs/laptop runs/other --out both.png
"""
REPORT = """Write the page of one run or several as one HTML file, from their folders alone: what was trained from what, curves, speed,
events, environment, how to reproduce. More: docs/run-page.md.
"""
REPORT_EXAMPLE = """examples:
  stillhouse report runs/laptop                                writes runs/laptop/report.html
  stillhouse report runs/laptop runs/other --out both.html     two runs in the same plots
"""
WATCH = """Show the numbers of a run live in the terminal, from its folder: state, progress, losses, scores, speed, memory, events. It
ends when the run ends. More: docs/run-page.md.
"""
WATCH_EXAMPLE = """examples:
  stillhouse watch runs/laptop             until the run ends, or Ctrl-C
  stillhouse watch runs/laptop --once      once, also without a terminal
"""


def add_plot(verbs: Verbs) -> None:
    """`stillhouse plot`."""
    plot = verbs.add_parser("plot", help="draw the curves of runs into one picture", description=PLOT, epilog=EXAMPLE, formatter_class=RAW)
    plot.add_argument("runs", nargs="+", metavar="RUN", help="run folders; several are drawn over each other")
    plot.add_argument("--out", default=None, metavar="FILE", help="the PNG to write (RUN/curves.png; curves.png for several runs)")


DASHBOARD = """Build a W&B workspace and a report that compares runs: sections for learning, teaching, speed and health. A later
call updates those of the same names. --spec and --dry-run need neither network nor account.
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


def add_report(verbs: Verbs) -> None:
    """`stillhouse report`."""
    report = verbs.add_parser(
        "report", help="write the page of runs as one HTML file", description=REPORT, epilog=REPORT_EXAMPLE, formatter_class=RAW
    )
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folders; several are drawn over each other")
    report.add_argument("--out", default=None, metavar="FILE", help="the page (RUN/report.html; report.html for several runs)")


def add_watch(verbs: Verbs) -> None:
    """`stillhouse watch`."""
    watch = verbs.add_parser(
        "watch", help="a run's numbers live in the terminal", description=WATCH, epilog=WATCH_EXAMPLE, formatter_class=RAW
    )
    watch.add_argument("run", metavar="RUN", help="a run folder, also of a run on another node")
    watch.add_argument("--once", action="store_true", help="print once and stop")
    watch.add_argument("--seconds", type=above_zero, default=2.0, metavar="N", help="seconds between two looks (2)")
