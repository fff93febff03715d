"""Arguments of `stillhouse demo`."""

from launcher.commands.common import RAW, Verbs, at_least

DEMO = """Bring a teacher and text as packages (110 MB), build shards, train the teacher's head, distil a student, train the same
student without a teacher, score all of them, and train teacher and student on a task. A quarter of an hour on two cores. Started again,
it goes on.
"""
DEMO_EXAMPLE = """example:
  stillhouse demo --folder runs/demo
"""


def add_demo(verbs: Verbs) -> None:
    """`stillhouse demo`."""
    demo = verbs.add_parser(
        "demo",
        help="text to a measured student, on packaged text and teacher",
        description=DEMO,
        epilog=DEMO_EXAMPLE,
        formatter_class=RAW,
    )
    demo.add_argument("--folder", default="runs/demo", help="where everything goes (runs/demo)")
    demo.add_argument("--seed", type=at_least(0), default=1, help="of masks, order and initialisation (1)")
