"""Arguments of `stillhouse completion`."""

import argparse

from launcher.commands.common import RAW, Verbs

SHELLS = ("bash", "zsh", "fish")
COMPLETION = "Print the script with which a shell completes verbs, options, configurations and settings."
COMPLETION_EXAMPLE = """examples:
  stillhouse completion bash              the script for bash
  source <(stillhouse completion bash)    the line for ~/.bashrc (with zsh: for ~/.zshrc)
  stillhouse completion fish              put it into ~/.config/fish/completions/stillhouse.fish
"""


def add_completion(verbs: Verbs) -> None:
    """`stillhouse completion`."""
    completion = verbs.add_parser(
        "completion",
        help="completion of verbs and options in a shell",
        description=COMPLETION,
        epilog=COMPLETION_EXAMPLE,
        formatter_class=RAW,
    )
    completion.add_argument("shell", choices=SHELLS, help="whose script to print")
    completion.add_argument("--words", nargs="*", default=None, help=argparse.SUPPRESS)  # of the line so far, each behind a =
