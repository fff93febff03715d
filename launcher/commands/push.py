"""Arguments of `stillhouse push`."""

from launcher.commands.common import RAW, Verbs

PUSH = """Send the student of a finished run and its model card to a model hub. Checkpoints, logs and paths stay here. The token
comes from `hf auth login` or HF_TOKEN. More: docs/publishing.md.
"""
PUSH_EXAMPLE = """examples:
  stillhouse push runs/laptop my-name/my-student --licence apache-2.0 --language en --dry-run
  stillhouse push runs/laptop my-name/my-student --licence apache-2.0 --language en --private
  stillhouse push runs/demo/teacher/model my-name/my-teacher
"""


def add_push(verbs: Verbs) -> None:
    """`stillhouse push`."""
    push = verbs.add_parser(
        "push", help="publish a student and its model card on a hub", description=PUSH, epilog=PUSH_EXAMPLE, formatter_class=RAW
    )
    push.add_argument("run", metavar="RUN", help="the folder of a finished run, or a model folder")
    push.add_argument("repo", metavar="REPO", help="owner/name on the hub (HF_ENDPOINT; huggingface.co)")
    push.add_argument("--licence", "--license", default=None, metavar="NAME", help="for the card, as apache-2.0 (none)")
    push.add_argument("--language", default=None, metavar="CODE", help="for the card, as en or en,de (none)")
    push.add_argument("--base-model", default=None, metavar="NAME", help="for the card: the hub name of a teacher that is a local folder")
    push.add_argument("--private", action="store_true", help="make the repository private, and refuse a public one")
    push.add_argument("--dry-run", action="store_true", help="list the files with sizes, and send nothing")
