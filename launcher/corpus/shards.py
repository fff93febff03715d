"""`stillhouse shards build | verify | info`: the functions of data_shards with a progress bar and printed results."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from data_shards.build.build import build
from data_shards.build.merge import merge
from data_shards.build.parts import build_part
from data_shards.build.progress import BuildProgress
from data_shards.build.settings import BuildSettings
from data_shards.info import Info, SplitInfo, info
from data_shards.sources.files import guessed, left_out
from data_shards.sources.settings import SourceSettings
from data_shards.storage.manifest import Manifest
from data_shards.verify import verify
from launcher.errors import LaunchError
from launcher.tables import Column, PlainConsole, print_table
from launcher.text import counted, size

LEGEND = "train is what a run learns from, heldout is kept back for evaluation; tokens are ids of the text, without special tokens"


def run(arguments: argparse.Namespace) -> int:
    """Run one verb; its exit code."""
    {"build": _build, "verify": _verify, "info": _info}[arguments.shards_verb](arguments, PlainConsole())
    return 0


def build_with_progress(
    settings: BuildSettings, folder: Path, processes: int | None, console: Console, part: tuple[int, int] | None = None
) -> None:
    """Build with a bar on a terminal. part: (k, n) builds only part k of n (see data_shards.build.parts)."""
    columns = (TextColumn("tokenising"), BarColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, words="")

        def show(progress: BuildProgress) -> None:
            read = f"{counted(progress.documents, 'document')}, {counted(progress.tokens, 'token')}"
            words = f"{read}, {progress.tokens_per_second:,.0f} tokens/s"
            bar.update(task, completed=progress.bytes_read, total=progress.bytes_total, words=words)

        if part is not None:
            build_part(settings, folder, *part, processes=processes, progress=show)
        else:
            manifest = build(settings, folder, processes, show)
    if part is not None:
        console.print(
            f"part {part[0] + 1} of {part[1]} is ready in {folder}; when all are ready, merge them with --seal {part[1]}", soft_wrap=True
        )
    else:
        _print_built(manifest, folder, console)


def _print_built(manifest: Manifest, folder: Path, console: Console) -> None:
    made = manifest.built_from
    dropped = f"{made.empty} empty, {made.duplicate} duplicate, {made.invalid} invalid dropped or repaired"
    for split in ("train", "heldout"):
        entries = manifest.entries(split)
        words = f"{counted(manifest.documents(split), 'document')}, {counted(manifest.tokens(split), 'token')}"
        console.print(f"{split}: {words} in {counted(len(entries), 'shard')}")
    console.print(f"read {counted(made.documents_read, 'document')} ({dropped}); shards in {folder}", soft_wrap=True)
    share = made.settings["heldout"]
    if share and not manifest.documents("heldout"):
        consequence = "runs on these shards have no held-out scores"
        console.print(f"no document is held out at --heldout {share:g}: {consequence}; raise it", soft_wrap=True)


def _print_left_out(files: list[tuple[str, str]], console: Console) -> None:
    """Print the files of the sources' folders that were not read, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for path, reason in files:
        reasons.setdefault(reason, []).append(path)
    if files:
        parts = [
            f"{', '.join(paths[:3])}{f' and {len(paths) - 3} more' if len(paths) > 3 else ''} ({why})" for why, paths in reasons.items()
        ]
        console.print(f"left out {counted(len(files), 'file')}: {'; '.join(parts)}", soft_wrap=True, markup=False)


def _build(arguments: argparse.Namespace, console: Console) -> None:
    source = {"kind": arguments.kind, "column": arguments.column, "per": arguments.per, "name": arguments.name, "split": arguments.split}
    source |= {
        "invalid_utf8": arguments.invalid_utf8,
        "separator": arguments.separator,
        "quoting": arguments.quoting,
        "member": arguments.text,
    }
    optional = {"shard_tokens": arguments.shard_tokens, "max_documents": arguments.max_documents}
    given = {name: value for name, value in optional.items() if value is not None}
    if arguments.shard_tokens is not None:
        given["block_tokens"] = min(arguments.shard_tokens, BuildSettings.model_fields["block_tokens"].default)
    try:
        settings = BuildSettings(
            sources=tuple(SourceSettings(path=path, **source) for path in arguments.sources),
            tokenizer=arguments.tokenizer,
            heldout=arguments.heldout,
            drop_duplicates=arguments.drop_duplicates,
            seed=arguments.seed,
            **given,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][-1] if first["loc"] else "sources").replace("_", "-")
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("expected ")
        raise LaunchError(f"{name}: expected {expected}, got {first['input']!r}; see stillhouse shards build --help") from None
    if arguments.seal is not None:
        _print_built(merge(settings, arguments.out, arguments.seal), Path(arguments.out), console)
    else:
        build_with_progress(settings, Path(arguments.out), arguments.processes, console, arguments.part)
    _print_left_out(left_out(settings.sources), console)
    unknown = guessed(settings.sources)
    if unknown:
        rest = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        console.print(f"read as text, for want of a known ending: {', '.join(unknown[:3])}{rest}", soft_wrap=True, markup=False)


def _verify(arguments: argparse.Namespace, console: Console) -> None:
    report = verify(arguments.folder, arguments.cache_folder)
    if arguments.json:
        print(json.dumps(asdict(report)))
        return
    console.print(
        f"good: {counted(report.shards, 'shard')}, {counted(report.blocks, 'block')}, {counted(report.documents, 'document')}, "
        f"{counted(report.tokens, 'token')}, {counted(report.sidecars, 'sidecar file')}, {size(report.bytes)}",
        soft_wrap=True,
    )


def _info(arguments: argparse.Namespace, console: Console) -> None:
    facts = info(arguments.folder, samples=arguments.samples, cache_folder=arguments.cache_folder)
    if arguments.json:
        print(json.dumps(asdict(facts) | {"built_from": facts.built_from.model_dump(mode="json")}))
        return
    _print_info(arguments.folder, facts, console)


def _print_info(folder: str, facts: Info, console: Console) -> None:
    console.print(folder, markup=False, highlight=False, soft_wrap=True)
    splits = dict(sorted(facts.splits.items(), reverse=True))  # train first
    rows: dict[str, Callable[[SplitInfo], str]] = {
        "shards": lambda split: f"{split.shards:,}",
        "size": lambda split: size(split.bytes),
        "documents": lambda split: f"{split.documents:,}",
        "tokens": lambda split: f"{split.tokens:,}",
        "tokens per document, mean": lambda split: f"{split.mean_length:,.0f}",
        "  5 % are at most": lambda split: f"{split.length_percentiles[5]:,}",
        "  half are at most": lambda split: f"{split.length_percentiles[50]:,}",
        "  95 % are at most": lambda split: f"{split.length_percentiles[95]:,}",
        "  the longest": lambda split: f"{split.length_percentiles[100]:,}",
    }
    columns = [Column(name, [text(split) for text in rows.values()]) for name, split in splits.items()]
    print_table(console, Column("", list(rows), justify="left"), columns)
    console.print(LEGEND, style="dim", highlight=False)
    used = facts.vocabulary_used / facts.vocabulary_size
    console.print(
        f"vocabulary: {facts.vocabulary_used:,} of {facts.vocabulary_size:,} ids used ({used:.1%}); "
        f"{facts.unknown_share:.3%} of the tokens are the unknown token"
    )
    console.print(f"tokenizer {facts.tokenizer_fingerprint[:12]}…, shards {facts.fingerprint[:12]}…")
    for name, split in facts.splits.items():
        for sample in split.samples:
            console.print(f"{name}: ", style="dim", end="", highlight=False)
            console.print(sample, markup=False, soft_wrap=True)
