"""`stillhouse push RUN REPO`: the student of a finished run, or an exported folder, with its model card, to a model hub.

1. Find the files to publish: those that transformers reads, and the card. Everything else of a run stays on this machine.
2. Check that they are the files that the run wrote.
3. Put licence, language, base model and the repository's name into the card. RUN/student/README.md itself is not changed.
4. Create the repository and send one commit. huggingface_hub does both. It sends no file that the repository already has.

Imports no torch. The token is never printed.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars, logging, validate_repo_id
from rich.console import Console

from kd.export.files import CARD
from kd.export.model_card import THIS_FOLDER
from launcher.deployment.exported_files import add_front_matter, exported_files
from launcher.deployment.files import PublishedFiles, published_files
from launcher.deployment.folder import is_exported
from launcher.errors import LaunchError
from launcher.process.model_hub import HUB, unreachable
from launcher.redaction import redacted
from launcher.tables import PlainConsole
from launcher.text import size

ADVICE = {
    400: "correct what it names",
    401: "log in again with `hf auth login`, or set HF_TOKEN",
    403: "use a token that may write there, or another name",
    404: "correct the name",
}
"""The advice for an answer of the hub, by its HTTP status."""


@dataclass(frozen=True)
class CardSettings:
    """The facts that the command line adds to a card. None leaves the card as it is."""

    licence: str | None
    languages: list[str] | None
    base_model: str | None


def run(arguments: argparse.Namespace) -> int:
    """Show what would be sent, or send it."""
    check_name(arguments.repo)
    publish(Path(arguments.run), arguments.repo, arguments)
    return 0


def publish(folder: Path, repo: str, arguments: argparse.Namespace) -> None:
    """Show what would be sent of a run, a model folder or an exported folder, or send it. arguments: those of the card and the hub."""
    console = PlainConsole(highlight=False)
    exported = is_exported(folder)
    files = exported_files(folder) if exported else published_files(folder)
    settings = CardSettings(arguments.licence, arguments.language.split(",") if arguments.language else None, arguments.base_model)
    card = completed_card((files.folder / CARD).read_text(encoding="utf-8"), repo, settings)
    if exported:
        add_front_matter(card, folder)
    hub = os.environ.get("HF_ENDPOINT") or HUB
    _show(files, card, console)
    if arguments.dry_run:
        kind = "private repository" if arguments.private else "repository"
        console.print(f"dry run: nothing was sent to the {kind} {repo} on {redacted(hub)}", soft_wrap=True, markup=False)
        return
    push(files, str(card), repo, hub, arguments.private, console)


def check_before_export(arguments: argparse.Namespace) -> None:
    """Raise LaunchError now, and not after an export, for a name that is none, and where there is no token."""
    if arguments.push_to_hub is None:
        if arguments.dry_run:
            raise LaunchError("--dry-run: expected --push-to-hub with it, got none; name a repository")
        return
    check_name(arguments.push_to_hub)
    if not arguments.dry_run:
        _token()


def completed_card(text: str, repo: str, settings: CardSettings) -> ModelCard:
    """A card with the settings in its front matter and the repository's name in its code. Raises LaunchError for a broken front matter."""
    logging.set_verbosity_error()  # a README without a front matter is no reason to warn
    try:
        card = ModelCard(text.replace(THIS_FOLDER, f'MODEL = "{repo}"'), ignore_metadata_errors=False)
        added = {"license": settings.licence, "language": settings.languages, "base_model": settings.base_model}
        for name, value in added.items():
            if value is not None:
                card.data[name] = value
        str(card)
    except Exception as error:  # yaml's errors, and whatever huggingface_hub makes of a strange front matter
        raise LaunchError(f"{CARD}: expected a model card with a front matter in YAML, got {_words(error)}; correct the file") from None
    return card


def push(files: PublishedFiles, card: str, repo: str, hub: str, private: bool, console: Console) -> None:
    """Create the repository, unless it is there, and send what it lacks as one commit. Raises LaunchError."""
    token = _token()
    problem = "HF_HUB_OFFLINE is set" if _is_offline() else unreachable(hub)
    if problem:
        advice = "unset it" if _is_offline() else "check the network"
        raise LaunchError(f"{redacted(hub)}: expected the hub to answer, got none ({problem}); {advice}, and start again")
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(endpoint=hub, token=token)
    with _hub_errors(repo, token):
        api.create_repo(repo, private=True if private else None, exist_ok=True)
        before = api.model_info(repo)
        if private and before.private is False:
            raise LaunchError(f"{repo}: expected a private repository, got a public one; change it on the hub, or use another name")
        operations = [CommitOperationAdd(CARD, card.encode())]
        operations += [CommitOperationAdd(path.name, str(path)) for path in files.paths if path.name != CARD]
        commit = api.create_commit(repo, operations, commit_message="Upload by Stillhouse")
    if commit.oid == before.sha:
        console.print(f"already there: {redacted(hub)}/{repo}; no file differs", soft_wrap=True, markup=False)
    else:
        console.print(f"pushed: {redacted(hub)}/{repo} (commit {str(commit.oid)[:12]})", soft_wrap=True, markup=False)


def _show(files: PublishedFiles, card: ModelCard, console: Console) -> None:
    """The files with their sizes, what stays here, and what the card lacks."""
    sizes = {path.name: len(str(card).encode()) if path.name == CARD else path.stat().st_size for path in files.paths}
    width = max(map(len, sizes))
    for name, count in sizes.items():
        console.print(f"  {name:<{width}}  {size(count):>8}", soft_wrap=True, markup=False)
    noun = "file" if len(sizes) == 1 else "files"
    console.print(f"{len(sizes)} {noun}, {size(sum(sizes.values()))}")
    if files.left_out:
        text = ", ".join(f"{name} ({size(count)})" for name, count in files.left_out.items())
        console.print(f"not sent: {text}", markup=False)
    if not files.checked:
        console.print("not compared with the run: its report.json has no digests of the files", markup=False)
    if not card.data.get("license"):
        console.print("licence: the card names none; add one with --licence, as --licence apache-2.0")
    if not card.data.get("base_model") and "distillation" in (card.data.get("tags") or []):
        console.print("base model: the card names none; add the teacher's hub name with --base-model")
    if not card.data.get("language"):
        console.print("language: the card names none; add it with --language, as --language en")


@contextmanager
def _hub_errors(repo: str, token: str) -> Iterator[None]:
    """Errors of the hub and of the network as one line, without the token."""
    try:
        yield
    except LaunchError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        got = f"{status} {error.response.reason_phrase}".strip()
        words = error.server_message or ""
        detail = f" ({' '.join(words.split())[:200]})" if words else ""
        advice = ADVICE.get(status, "start again: files that are there are not sent twice")
        text = f"{repo}: expected the hub to take the files, got {got}{detail}; {advice}"
    except OfflineModeIsEnabled:
        text = f"{repo}: expected the hub to answer, got none (HF_HUB_OFFLINE is set); unset it, and start again"
    except Exception as error:  # httpx2's errors, hf_xet's, and the hub's refusal of a card (ValueError)
        got = _words(error)
        card = "Invalid metadata" in got
        advice = "correct --licence, --language or the card" if card else "start again: files that are there are not sent twice"
        text = f"{repo}: expected the hub to take the {'card' if card else 'files'}, got {got}; {advice}"
    else:
        return
    raise LaunchError(redacted(text).replace(token, "***"))


def _token() -> str:
    token = get_token()
    if token is None:
        raise LaunchError("token: expected a token of the model hub, got none; run `hf auth login`, or set HF_TOKEN")
    return token


def check_name(repo: str) -> None:
    """Raise LaunchError for a name that is not owner/name."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise LaunchError(f"REPO: expected owner/name, got {repo} ({_words(error)}); correct it") from None
    if repo.count("/") != 1:
        raise LaunchError(f"REPO: expected owner/name, got {repo}; put your user name or organisation in front")


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _words(error: Any) -> str:
    """An exception on one line of at most 300 letters."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:300]
