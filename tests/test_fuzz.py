"""More than two thousand broken inputs: manifest, shard, sidecars, checkpoint, configuration, cursor, metrics.

Each is answered by one clear line of ours or by what was really meant; never by a traceback, a hang or a wrong batch. Wrong content with
the right hash (an adversary's file) is among them.
"""

import io
import json
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.build.journal import Journal
from data_shards.build.sidecars import finish
from data_shards.errors import DataError
from data_shards.storage.lengths import read_lengths
from data_shards.storage.location import Location
from data_shards.storage.manifest import BuiltFrom, Manifest, ShardEntry
from data_shards.storage.shard import Shard
from data_shards.storage.shard_writer import SplitWriter
from data_shards.storage.token_statistics import TokenStatistics
from data_shards.stream.cursor import Cursor
from kd.checkpoint import checkpoint, on_disk
from kd.checkpoint.on_disk import Progress
from kd.errors import KdError
from launcher.config.load import load_config
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError
from launcher.run_folder import metrics_file
from stillhouse.digests import canonical_sha256

OURS = (DataError, KdError, LaunchError)
pytestmark = pytest.mark.timeout(120)  # a hang; each test takes a second or two
VOCABULARY, WORDS = 64, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
cases = {"count": 0}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def quickly(examples: int) -> settings:
    """The same examples each time."""
    everything = list(HealthCheck)
    return settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=everything)


def answered(action: Callable[[], Any]) -> Any:
    """What an action gives, or None where it refuses in one line."""
    cases["count"] += 1
    try:
        return action()
    except OURS as error:
        refusal = error
    text = str(refusal)
    assert text.strip()
    assert "Traceback" not in text
    assert "\n" not in text or isinstance(refusal, LaunchError), f"not one line: {text}"  # LaunchError: one line a mistake
    return None


def broken(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The content with a bit flipped, cut short, doubled, with a stretch of zeros or noise, or a stretch left out: `count` ways."""
    draw = random.Random(seed)
    for number in range(count):
        data = bytearray(content)
        at, length = draw.randrange(len(data)), draw.randint(1, 40)
        if number % 6 == 0:
            del data[at:]
        elif number % 6 == 1:
            del data[at : at + length]
        elif number % 6 == 2:
            data[at : at + length] = bytes(min(length, len(data) - at))
        elif number % 6 == 3:
            data[at : at + length] = draw.randbytes(length)
        else:
            data[at] ^= 1 << draw.randrange(8)
        if bytes(data) != content:
            yield bytes(data)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small shards of each split."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415 (slow to import, for this module alone)
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = {word: index for index, word in enumerate([*WORDS, *(f"w{n}" for n in range(5, VOCABULARY))])}
    backend = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    pad, unk, cls, sep, mask = WORDS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask
    )
    folder = tmp_path_factory.mktemp("original")
    draw = random.Random(1)
    writers = {}
    for split in ("train", "heldout"):
        writer = writers[split] = SplitWriter(folder, split, 40, 90, VOCABULARY, lambda entry: None)
        lengths = np.array([draw.randint(1, 20) for _ in range(16)], np.uint32)
        writer.add(np.array([draw.randrange(5, VOCABULARY) for _ in range(int(lengths.sum()))], np.uint8), lengths, [b""] * 16)
        writer.finish()
    built_from = BuiltFrom(settings={}, documents_read=32, empty=0, duplicate=0, invalid=0)
    finish(folder, {split: tuple(writer.entries) for split, writer in writers.items()}, writers["train"].counts, tokenizer, built_from)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "shards")
    return tmp_path / "shards"


def relabelled(manifest: Manifest, name: str, content: bytes) -> Manifest:
    """The manifest of somebody who wants this content to be believed."""
    import hashlib  # noqa: PLC0415

    own = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    values = manifest.model_dump(mode="json")
    for entries in values["splits"].values():
        for entry in entries:
            if entry["name"] == name:
                entry.update(own)
    if name in values["sidecars"]:
        values["sidecars"][name].update(own)
    return Manifest.model_validate(values)


def test_manifests(folder: Path):
    content = (folder / "manifest.json").read_bytes()
    meant = Manifest.load(folder)
    for data in broken(content, 260, seed=1):
        (folder / "manifest.json").write_bytes(data)
        manifest = answered(lambda: Manifest.load(folder))
        assert manifest is None or manifest == meant, "every changed value is noticed"


@quickly(150)
@given(value=anything, where=st.lists(st.sampled_from(["splits", "train", 0, "bytes", "sidecars", "dtype", "vocabulary_size"]), max_size=4))
def test_manifests_with_any_value_anywhere(original: Path, tmp_path_factory: pytest.TempPathFactory, value: Any, where: list[Any]):
    values = json.loads((original / "manifest.json").read_bytes())
    del values["digest"]
    at = values
    for key in where[:-1]:
        at = at[key] if (isinstance(at, dict) and key in at) or (isinstance(at, list) and isinstance(key, int) and key < len(at)) else at
    if where and isinstance(at, dict):
        at[str(where[-1])] = value
    place = tmp_path_factory.getbasetemp() / "any-manifest"
    place.mkdir(exist_ok=True)
    (place / "manifest.json").write_text(json.dumps(values))
    answered(lambda: Manifest.load(place))


def test_shards_whose_hash_tells(folder: Path):
    entry = Manifest.load(folder).entries("train")[0]
    path = folder / entry.name
    content = path.read_bytes()
    for data in broken(content, 400, seed=2):
        path.write_bytes(data)
        assert answered(lambda: Shard.open(folder, entry, dtype="uint8")) is None, "every changed byte is noticed"


def test_shards_of_an_adversary_whose_hash_is_right(folder: Path):
    manifest = Manifest.load(folder)
    entry = manifest.entries("train")[0]
    content = (folder / entry.name).read_bytes()
    for data in broken(content, 400, seed=3):
        (folder / entry.name).write_bytes(data)
        believed = relabelled(manifest, entry.name, data).entries("train")[0]
        shard = answered(lambda believed=believed: Shard.open(folder, believed, dtype="uint8"))
        if shard is not None:
            assert len(shard.tokens(np.arange(entry.tokens))) == entry.tokens


def members() -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Members that no shard has."""
    for name in ("/etc/passwd", "../../000000-00000.json", "000000-00000.json/../../x", "000000-00000.py", "000000-00000.pkl", "a" * 90):
        yield "plain", tarfile.TarInfo(name), b"x" * 10
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        info = tarfile.TarInfo("000000-00000.json")
        info.type, info.linkname = kind, "/etc/passwd"
        yield "kind", info, b""
    for nested in (
        b"[" * 4000,
        b"[" * 100_000,
        b'{"documents":' * 300,
        b'{"documents": 1e999}',
        b'{"documents": ' + b"9" * 3000 + b"}",
        b" " * 9000,
    ):
        yield "json", tarfile.TarInfo("000000-00000.json"), nested


@pytest.mark.parametrize(("kind", "info", "content"), list(members()))
def test_members_that_no_shard_has_are_refused(tmp_path: Path, kind: str, info: tarfile.TarInfo, content: bytes):
    bytes_ = io.BytesIO()
    with tarfile.open(fileobj=bytes_, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        for name in ("000000-00000.lengths.npy", "000000-00000.tokens.npy"):
            tar.addfile(tarfile.TarInfo(name))
    (tmp_path / "train-000000.tar").write_bytes(bytes_.getvalue())
    entry = ShardEntry(name="train-000000.tar", bytes=len(bytes_.getvalue()), sha256="0" * 64, documents=1, tokens=1)
    assert answered(lambda: Shard.open(tmp_path, entry, verify=False)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["train-000000.tar"], "nothing is ever unpacked"


def test_a_header_that_promises_more_than_there_is_reserves_nothing(tmp_path: Path):
    for size in (1 << 33, (1 << 33) - 1, 1 << 40):
        info = tarfile.TarInfo("000000-00000.tokens.npy")
        info.size = size
        data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
        (tmp_path / "train-000000.tar").write_bytes(data)
        entry = ShardEntry(name="train-000000.tar", bytes=len(data), sha256="0" * 64, documents=1, tokens=1)
        assert answered(lambda entry=entry: Shard.open(tmp_path, entry, verify=False)) is None


@pytest.mark.parametrize("name", ["vocabulary.npz", "lengths-train.npy"])
def test_sidecars_of_an_adversary_whose_hash_is_right(folder: Path, name: str):
    manifest = Manifest.load(folder)
    content = (folder / name).read_bytes()
    for data in broken(content, 200, seed=4):
        (folder / name).write_bytes(data)
        believed = relabelled(manifest, name, data)
        if name == "vocabulary.npz":
            answered(lambda believed=believed: TokenStatistics.load(Location.of(folder), believed))
        else:
            found = answered(lambda believed=believed: read_lengths(Location.of(folder), believed, "train"))
            assert found is None or found.shape == (manifest.documents("train"),)


def test_a_bomb_among_the_sidecars_is_read_no_further_than_it_may_reach(folder: Path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("counts", "is_special", "is_continuation"):
            archive.writestr(f"{name}.npy", bytes(40 << 20))
    assert len(bomb.getvalue()) < 1 << 20
    (folder / "vocabulary.npz").write_bytes(bomb.getvalue())
    believed = relabelled(Manifest.load(folder), "vocabulary.npz", bomb.getvalue())
    assert answered(lambda: TokenStatistics.load(Location.of(folder), believed)) is None


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    state = [("student.w", torch.arange(12.0).reshape(3, 4), {"exp_avg": torch.ones(3, 4), "exp_avg_sq": torch.zeros(3, 4)})]
    checkpoint.write(folder, Progress(7, 1, 900, {"cursor": {"windows": 56, "fingerprint": "ab"}}), state)
    return folder


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "moments.safetensors"])
def test_checkpoints(saved: Path, tmp_path: Path, name: str):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy" / "update-00000007" / name
    progress = on_disk.read(path.parent).progress
    content = path.read_bytes()
    for data in broken(content, 160, seed=5):
        path.write_bytes(data)
        found, passed_over = answered(lambda: on_disk.newest_good(tmp_path / "copy"))
        assert (found is None) == bool(passed_over)
        assert found is None or found.progress == progress, "white space alone"
        if name != "state.json":
            assert found is None
            answered(lambda: checkpoint.load_state(on_disk.Checkpoint(path.parent, progress, {})))  # as if the hash had been right


@quickly(150)
@given(value=anything, key=st.sampled_from(["files", "facts", "done", "tokens", "skipped", "format", "weights.safetensors", None]))
def test_checkpoints_of_an_adversary_whose_digest_is_right(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, value: Any, key: str | None
):
    body = json.loads((saved / "update-00000007" / "state.json").read_bytes())
    body.pop("digest")
    if key is None:
        body = value
    elif key in body:
        body[key] = value
    else:
        body["files"][key] = value
    place = tmp_path_factory.getbasetemp() / "any-checkpoint" / "update-00000007"
    place.mkdir(parents=True, exist_ok=True)
    if isinstance(body, dict):
        body = json.loads(json.dumps(body))
        body["digest"] = canonical_sha256(body, ascii_only=True)
    (place / "state.json").write_text(json.dumps(body))
    answered(lambda: on_disk.newest_good(place.parent))


CONFIG = (PACKAGED / "tiny.yaml").read_bytes()


def test_configurations(tmp_path: Path):
    for data in broken(CONFIG, 200, seed=6):
        path = tmp_path / "mine.yaml"
        path.write_bytes(data)
        answered(lambda path=path: load_config(str(path)))


@quickly(100)
@given(text=st.text(alphabet="[]{}:,&*!|>-?#%@`'\" \n\tabc019.e~<", max_size=60))
def test_configurations_of_anything(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    assert answered(lambda: load_config(str(path))) is None


@pytest.mark.parametrize(
    "text",
    [
        "run: !!python/object/apply:os.system [touch pwned]",
        "run: !!python/name:os.system",
        "run: !!python/object/new:subprocess.Popen [[touch, pwned]]",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c]",
        "a: &a {b: *a}",
        "[" * 5000,
        "a: " + "9" * 5000,
    ],
)
def test_configurations_that_would_run_or_never_end(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    assert answered(lambda: load_config("mine.yaml")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@quickly(200)
@given(value=anything | st.fixed_dictionaries({"windows": anything, "fingerprint": anything}))
def test_cursors(value: Any):
    cursor = answered(lambda: Cursor.from_dict(value))
    assert cursor is None or cursor.as_dict() == value


def test_journals_and_metrics(tmp_path: Path):
    entry = {"name": "train-000000.tar", "bytes": 1, "sha256": "0" * 64, "documents": 1, "tokens": 1}
    journal = Journal.model_validate(
        {"settings": {"seed": 1}, "tokenizer_fingerprint": "ab", "splits": {"train": {"shards": [entry], "consumed": 3, "digest": "cd"}}}
    )
    journal.save(tmp_path)
    (place,) = tmp_path.iterdir()
    for data in broken(place.read_bytes(), 120, seed=7):
        place.write_bytes(data)
        answered(lambda: Journal.load(tmp_path))
    lines = "".join(metrics_file.json_line({"kind": "train", "update": update, "loss": 1.5}) for update in range(1, 9)).encode()
    path = tmp_path / "metrics.jsonl"
    for data in [*broken(lines, 120, seed=8), b"[" * 100_000 + b"\n" + lines, b"\xff\xfe\n" + lines]:
        path.write_bytes(data)
        answered(lambda: metrics_file.read(path))


def test_there_were_two_thousand_cases():
    """Last in this file: counts what the others tried."""
    if cases["count"] < 500:
        pytest.skip("the tests of this file were not all run")
    assert cases["count"] >= 2000, cases["count"]
    print(cases["count"], "broken inputs")
