"""The functions behind `import stillhouse` that several packages take part in, for one process without ranks."""

from pathlib import Path
from typing import Any

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.corpus import Corpus
from data_shards.sources.settings import SourceSettings
from data_shards.storage.manifest import Manifest
from data_shards.stream.settings import StreamSettings
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.student import student
from kd.student.settings import StudentSettings
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.evaluation.evaluate import score
from launcher.planning.plan import make_plan
from launcher.training import session
from launcher.training.build import data_of


def build_shards(sources: list[str], folder: str | Path, tokenizer: str, processes: int | None = None, **settings: Any) -> Manifest:
    """Tokenise files into a shard folder; the manifest of the folder. A folder that is complete is returned as it is.

    sources: files, folders, globs or URLs. settings: fields of data_shards.build.settings.BuildSettings, as heldout or seed.
    Raises DataError for sources, a tokenizer or a folder that cannot be used.
    """
    made = BuildSettings(sources=tuple(SourceSettings(path=path) for path in sources), tokenizer=tokenizer, **settings)
    return build(made, folder, processes)


def train(config: RunConfig, resume: bool = False) -> Path:
    """Train or continue a run in this process; the folder of the student, which `transformers` loads.

    resume: refuse to start without a checkpoint. Raises StillhouseError for a setting or a file that cannot be used, and LaunchError if the
    run ends before its last update.
    """
    corpus = Corpus.open(config.data.shards, config.data.cache_folder)
    code = session.main(config, make_plan(config, 1, corpus), data_of(config, corpus), resume)
    folder = Path(config.run.folder)
    if code != 0:
        raise LaunchError(f"{folder}: expected the run to reach its last update, got exit code {code}; see {folder / 'log.txt'}")
    return folder / "student"


def evaluate(
    models: list[str],
    shards: str | Path,
    teacher: str | None = None,
    *,
    window_tokens: int = 128,
    windows: int | None = None,
    batch: int = 32,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Held-out scores: one row for each model, the teacher's first. loss in nats per masked token; top1, top5 and retention from 0 to 1.

    windows: how many held-out windows are used (all). Raises LaunchError for a model that does not fit the shards.
    """
    settings = StreamSettings(window_tokens=window_tokens, seed=seed)
    return score(models, str(shards), teacher, settings, windows, batch)


def load_model(path: str) -> Encoder:
    """A masked-language model of a folder or hub name, fp32 on the CPU; `.hf` is the transformers model. Raises KdError."""
    return load_mlm(path)


def make_student(teacher: Encoder, seed: int = 1, **settings: Any) -> Encoder:
    """A student made from a teacher's layers, fp32 on the CPU, in train mode. The teacher is not changed.

    settings: fields of `student` in a configuration, as layers=[0, 2, 4]. Raises KdError for an architecture that cannot be made.
    """
    return student.make_student(StudentSettings(**settings), teacher, seed)
