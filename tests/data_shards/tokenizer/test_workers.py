"""Tokenising processes: the same ids as the tokenizer's own, and no process left behind."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_shards.errors import DataError
from data_shards.tokenizer.fingerprint import plain_json
from data_shards.tokenizer.tokenizer import load_tokenizer
from data_shards.tokenizer.workers import TokeniserPool, encoder


@pytest.fixture(params=["wordpiece", "byte_bpe"])
def tokenizer(request):
    return load_tokenizer(str(request.getfixturevalue(request.param)))


def own_ids(tokenizer, text: str) -> list[int]:
    """The ids by transformers, one text at a time, with truncation and padding off."""
    return tokenizer(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"]


def test_the_encoder_gives_the_tokenizers_own_ids_without_truncation(tokenizer, texts):
    some = [*texts[:20], "", " ".join(texts[:50]), "ünïcödé 漢字 🙂"]
    ids, lengths = encoder(plain_json(tokenizer), "uint16")(some)
    assert ids.dtype == np.uint16
    expected = [own_ids(tokenizer, text) for text in some]
    assert lengths.tolist() == [len(row) for row in expected]
    assert ids.tolist() == [token for row in expected for token in row]


@pytest.fixture
def new_processes():
    """The children that this process did not have before the test: other tests may keep some for their session."""
    before = set(psutil.Process().children())
    return lambda: [child for child in psutil.Process().children() if child not in before]


@pytest.mark.slow
def test_several_processes_give_the_same_ids_in_the_order_of_the_futures(tokenizer, texts, new_processes):
    chunks = [[text.encode() for text in texts[first : first + 30]] for first in range(0, 300, 30)]
    with TokeniserPool(plain_json(tokenizer), "uint16", 2) as pool:
        results = [future.result() for future in [pool.submit(chunk) for chunk in chunks]]
    encode = encoder(plain_json(tokenizer), "uint16")
    for chunk, (ids, lengths) in zip(chunks, results, strict=True):
        expected_ids, expected_lengths = encode([text.decode() for text in chunk])
        assert ids.tolist() == expected_ids.tolist()
        assert lengths.tolist() == expected_lengths.tolist()
    assert new_processes() == []


@pytest.mark.slow
def test_a_process_that_dies_is_one_line_and_takes_the_others_along(wordpiece, texts, new_processes):
    tokenizer = load_tokenizer(str(wordpiece))
    with TokeniserPool(plain_json(tokenizer), "uint16", 2) as pool:
        for child in new_processes():
            child.kill()
        with pytest.raises(DataError, match=r"tokeniser: expected an answer, got the end of process \d+"):
            pool.submit([b"amber"]).result()
    assert new_processes() == []


@pytest.mark.slow
def test_a_killed_parent_leaves_no_process_behind(wordpiece):
    program = (
        "import sys, time\n"
        "from data_shards.tokenizer.workers import TokeniserPool\n"
        "pool = TokeniserPool(open(sys.argv[1]).read(), 'uint16', 2)\n"
        "pool.submit([b'amber']).result()\n"
        "print('ready', flush=True)\n"
        "pool.submit([b'amber birch ' * 2_000_000]).result()\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(wordpiece / "tokenizer.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as parent:
        assert parent.stdout.readline() == b"ready\n"
        children = psutil.Process(parent.pid).children()
        assert len(children) == 2
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == [], "a worker ends when its parent is gone, even in the middle of a text"


@pytest.mark.slow
def test_closing_does_not_wait_for_a_long_text(wordpiece):
    pool = TokeniserPool(plain_json(load_tokenizer(str(wordpiece))), "uint16", 1)
    future = pool.submit([b"amber birch " * 3_000_000])
    time.sleep(0.3)
    pool.close()
    with pytest.raises(DataError):
        future.result()


@pytest.mark.slow
@pytest.mark.parametrize("model", [models.WordPiece, models.WordLevel])
def test_a_character_that_a_tokenizer_without_an_unknown_token_lacks_is_one_line(model, new_processes):
    backend = Tokenizer(model({"a": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with TokeniserPool(backend.to_str(), "uint16", 1) as pool:
        assert pool.submit([b"a a"]).result()[0].tolist() == [0, 0]
        with pytest.raises(DataError, match=r"tokenizer: expected ids for every text, got: .*UNK.*; add an unknown token"):
            pool.submit([b"a", b"b"]).result()
    assert new_processes() == []
