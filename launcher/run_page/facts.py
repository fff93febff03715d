"""The facts of a run in words: what was trained from what, on which data, with which settings, and how to do it again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.config.load import flat_values
from launcher.run_page.numbers import SCORE_TITLES, SHARES, is_number
from launcher.run_page.record import Record, items, section
from launcher.text import counted, duration, number, share, size

Fact = tuple[str, str]
MOST_DIFFERENCES = 60


def facts(record: Record) -> list[Fact]:
    """(what, value) of a run, in the order of the page; what the folder does not have is left out."""
    found = [
        ("state", record.state.sentence),
        ("progress", progress(record)),
        ("student", _student(record)),
        ("teacher", _teachers(record)),
        ("data", _data(record)),
        ("length", _length(record)),
        ("optimizer", _optimizer(record)),
        ("ranks and precision", _ranks(record)),
        ("time", _time(record)),
        ("final scores", _scores(record)),
        ("remarks", "; ".join(map(str, record.report.get("remarks") or []))),
        ("run folder", str(record.folder)),
    ]
    return [(what, value) for what, value in found if value]


def progress(record: Record) -> str:
    """Updates and tokens so far, and the time that is left of a running run; empty before the first report."""
    last, total = record.last, record.last.get("updates")
    if not last:
        return ""
    text = f"update {last['update']:,}" + (f" of {total:,} ({share(last['update'] / max(total, 1))})" if is_number(total) else "")
    if is_number(last.get("tokens")):
        text += f", {last['tokens']:,} tokens"
    if is_number(last.get("epoch")):
        text += f", epoch {last['epoch']:.3g}"
    if record.state.is_running and is_number(last.get("seconds_left")):
        text += f", {duration(last['seconds_left'])} left"
    return text


def terms(record: Record) -> list[Fact]:
    """(term, its settings) of the objective; of each phase where the run has phases."""
    found = [(_term_name(term), _settings(term)) for term in items(record.values, "objective")]
    for n, phase in enumerate(items(record.values, "phases"), start=1):
        name = str(phase.get("name") or n)
        found += [(f"phase {name}: {_term_name(term)}", _settings(term)) for term in items(phase, "objective")]
    return found


def differences(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) where the runs differ, folder and name of the run left out."""
    flat = [flat_values(record.values) for record in records]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in ("run.folder", "run.name")]
    rows = [(key, [_value(one.get(key, "absent")) for one in flat]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1][:MOST_DIFFERENCES]


def environment(record: Record) -> list[Fact]:
    """(what, value) of environment.json, packages last."""
    known = {
        "job": "Slurm job",
        "cpus": "processors of rank 0's host",
        "memory_gb": "memory of rank 0's host, GB",
        "ranks": "ranks",
        "gemm": "matrix products, measured",
    }
    plain = [
        (known.get(name, name), _value(value))
        for name, value in record.environment.items()
        if name not in ("packages", "command", "data", "gemm") and value is not None
    ]
    gemm = section(record.environment, "gemm")
    if is_number(gemm.get("tflops_per_rank")):
        plain.append((known["gemm"], f"{gemm['tflops_per_rank']:.3g} TFLOP/s a rank in {gemm.get('precision')}"))
    packages = section(record.environment, "packages")
    return [*plain, ("packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version))]


def commands(record: Record) -> list[Fact]:
    """(what it does, command) that start the run again."""
    configuration = shlex.quote(str(record.folder / "config.yaml"))
    again = f"run.folder={shlex.quote(str(record.folder) + '-again')}"
    ranks = record.environment.get("ranks")
    verb = "stillhouse task train" if record.is_task else "stillhouse train"
    one = f"{verb} --config {configuration} {again}"
    if isinstance(ranks, int) and ranks > 1:
        one = f"torchrun --nproc-per-node {ranks} launcher/run.py --config {configuration} {again}"
    found = [("the same run in another folder", one)]
    commit = record.environment.get("commit")
    if isinstance(commit, str):
        found.insert(0, ("the code", f"git checkout {commit.removesuffix('-dirty')}"))
    if isinstance(record.environment.get("command"), str):
        found.append(("the command of the newest start", str(record.environment["command"])))
    return found


def caveats(record: Record) -> list[str]:
    """Reasons for which the commands may not give the same run."""
    found = []
    if str(record.environment.get("commit") or "").endswith("-dirty"):
        found.append("The code had changes that its commit does not have.")
    if any("***" in str(value) for value in flat_values(record.values).values()):
        found.append("*** stands for credentials, which a run folder does not keep: enter them again.")
    flat = flat_values(record.values).items()
    paths = [value for key, value in flat if key.startswith(("data", "teacher", "student.init")) and str(value).startswith("/")]
    if paths:
        found.append(f"These paths are of the machine that ran it: {', '.join(dict.fromkeys(map(str, paths)))}.")
    return found


def _student(record: Record) -> str:
    settings, report = section(record.values, "student"), record.report
    parts = []
    if settings:
        init = settings.get("init")
        parts.append("made from the teacher" if init == "teacher" else "random weights" if init == "random" else f"started from {init}")
        layers = settings.get("layers") if settings.get("count") is None else f"{settings['count']} layers"
        parts.append(f"layers {_value(layers)}" if settings.get("count") is None else str(layers))
        parts += [f"{name} {_value(settings[name])}" for name in ("shape", "width", "architecture") if settings.get(name) is not None]
    if is_number(report.get("parameters")):
        parts.append(f"{report['parameters']:,} parameters")
    if is_number(report.get("bytes")):
        parts.append(size(report["bytes"]))
    return ", ".join(parts)


def _teachers(record: Record) -> str:
    members = items(record.values, "teacher")
    told = []
    for member in members:
        more = [f"{name} {_value(member[name])}" for name in ("mode", "precision", "weight", "cache") if member.get(name) is not None]
        told.append(f"{member.get('model')} ({', '.join(more)})" if more else str(member.get("model")))
    return "; ".join(told) or ("none" if record.values else "")


def _data(record: Record) -> str:
    data, manifest = section(record.values, "data"), section(record.environment, "data")
    parts = []
    if record.is_task:
        parts += [str(data[name]) for name in ("preset", "kind") if data.get(name) is not None]
        parts += [f"{name} {_value(data[name])}" for name in ("train", "dev", "max_length") if data.get(name) is not None]
        rows = section(record.report, "rows") or section(manifest, "rows")
        parts += [f"{counted(count, 'row')} of {name}" for name, count in rows.items() if isinstance(count, int)]
    elif data:
        parts.append(str(data.get("shards")))
        names = [name for name in ("window_tokens", "packing", "seed") if data.get(name) is not None]
        parts += [f"{name.replace('_', ' ')} {_value(data[name])}" for name in names]
    for split in ("train", "heldout"):
        counts = section(manifest, split)
        if is_number(counts.get("documents")) and is_number(counts.get("tokens")):
            parts.append(f"{split}: {counted(counts['documents'], 'document')}, {counts['tokens']:,} tokens")
    if is_number(manifest.get("vocabulary_size")):
        parts.append(f"vocabulary {manifest['vocabulary_size']:,}")
    if manifest.get("fingerprint"):
        parts.append(f"fingerprint {manifest['fingerprint']}")
    return ", ".join(parts)


def _length(record: Record) -> str:
    train = section(record.values, "train")
    named = [f"{train[name]:,} {name}" for name in ("updates", "tokens", "epochs") if is_number(train.get(name))]
    if is_number(train.get("global_batch")):
        named.append(f"{train['global_batch']:,} rows an update")
    if is_number(train.get("micro_batch")):
        named.append(f"micro-batch {train['micro_batch']}")
    if "seed" in train:
        named.append(f"seed {_value(train['seed'])}")
    return ", ".join(named)


def _optimizer(record: Record) -> str:
    optimizer, train = section(record.values, "optimizer"), section(record.values, "train")
    names = ("learning_rate", "schedule", "warmup", "weight_decay", "betas", "final_share")
    parts = [f"{name.replace('_', ' ')} {_value(optimizer[name])}" for name in names if name in optimizer]
    if train.get("clip") is not None:
        parts.append(f"clip {_value(train['clip'])}")
    return ", ".join(parts)


def _ranks(record: Record) -> str:
    train = section(record.values, "train")
    ranks = record.report.get("ranks", record.environment.get("ranks"))
    parts = [counted(ranks, "rank")] if isinstance(ranks, int) else []
    precision = record.report.get("precision", train.get("precision"))
    parts += [str(precision)] if precision else []
    parts += [f"ZeRO stage {train['zero_stage']}"] if "zero_stage" in train else []
    return ", ".join(parts)


def _time(record: Record) -> str:
    report, parts = record.report, []
    if is_number(report.get("elapsed_seconds")):
        parts.append(duration(report["elapsed_seconds"]))
    rates = [line["tokens_per_second"] for line in record.train if is_number(line.get("tokens_per_second"))]
    if is_number(report.get("tokens_per_second")):
        parts.append(f"{report['tokens_per_second']:,.0f} tokens/s with evaluation and saving")
    if rates:
        parts.append(f"{sorted(rates)[len(rates) // 2]:,.0f} tokens/s in the median report")
    return ", ".join(parts)


def _scores(record: Record) -> str:
    scores = section(record.report, "heldout") or section(record.report, "dev")
    intervals = section(scores, "intervals")
    found = []
    for name, value in scores.items():
        if is_number(value) and name not in ("tokens", "rows"):
            form = share if any(word in name for word in SHARES) else number
            interval = intervals.get(name)
            ends = [form(end) for end in interval if is_number(end)] if isinstance(interval, list) else []
            within = f" (95 %: {' to '.join(ends)})" if len(ends) == 2 else ""
            found.append(f"{SCORE_TITLES.get(name, name.replace('_', ' '))} {form(value)}{within}")
    deciding = str(section(record.report, "task").get("metric"))
    teachers = items(record.report, "teachers")
    others = [*((f"teacher {n}" if len(teachers) > 1 else "teacher", one) for n, one in enumerate(teachers, 1))]
    for who, one in [*others, ("constant prediction", section(scores, "constant"))]:
        if is_number(one.get(deciding)):
            form = share if any(word in deciding for word in SHARES) else number
            found.append(f"{who}: {deciding.replace('_', ' ')} {form(one[deciding])}")
    return ", ".join(found)


def _term_name(term: Mapping[str, Any]) -> str:
    return str(term.get("kind"))


def _settings(term: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in term.items() if name != "kind" and value is not None)


def _value(value: Any) -> str:
    """A setting on one line, as YAML would write it in a row."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
