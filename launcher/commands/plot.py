"""Arguments of `stillhouse plot`."""

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
