"""How much of the tokenizer's own speed a build keeps, and how fast the stream is. Prints one JSON object.

python tests/benchmarks/bench_shards.py CORPUS TOKENIZER [--column text] [--rounds 3] [--processes N] [--max-documents N]

Each round tokenises the same documents on the same cores: by `Tokenizer.encode_batch` alone, texts already in memory and ids taken out as
numpy arrays; by `encode_batch_fast`, which leaves out offsets; and by `build`, from the file to the finished folder. The rounds interleave,
so that a busy machine slows all of them.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents
from data_shards.stream.settings import MaskingSettings, StreamSettings
from data_shards.stream.stream import Stream
from data_shards.tokenizer.fingerprint import plain_json
from data_shards.tokenizer.tokenizer import load_tokenizer

BATCH_DOCUMENTS = 1000
UPDATES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("tokenizer")
    parser.add_argument("--column", default="text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--max-documents", type=int)
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.processes)  # read when the tokenizer's threads start
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    source = SourceSettings(path=options.corpus, column=options.column)
    texts = [document.text for document in documents(source)][: options.max_documents]
    tokenizer = Tokenizer.from_str(plain_json(load_tokenizer(options.tokenizer)))
    settings = BuildSettings(sources=(source,), tokenizer=options.tokenizer, max_documents=options.max_documents)
    alone, fast, whole = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.rounds):
            folder = Path(scratch) / str(number)
            tokens, seconds = tokenizer_alone(tokenizer.encode_batch, texts)
            alone.append(tokens / seconds)
            fast.append(tokens / tokenizer_alone(tokenizer.encode_batch_fast, texts)[1])
            began = time.perf_counter()
            manifest = build(settings, folder, options.processes)
            whole.append((manifest.tokens("train") + manifest.tokens("heldout")) / (time.perf_counter() - began))
        report = {
            "documents": len(texts),
            "tokens": tokens,
            "processes": options.processes,
            "tokenizer_tokens_per_second": [round(rate) for rate in alone],
            "tokenizer_fast_tokens_per_second": [round(rate) for rate in fast],
            "build_tokens_per_second": [round(rate) for rate in whole],
            "ratio_median": round(statistics.median(b / a for a, b in zip(alone, whole, strict=True)), 3),
            "ratio_to_fast_median": round(statistics.median(b / a for a, b in zip(fast, whole, strict=True)), 3),
            "stream_tokens_per_second": {policy: round(stream_rate(folder, policy)) for policy in ("token", "whole_word", "frequency")},
        }
    print(json.dumps(report, indent=1))


def tokenizer_alone(encode: Callable[..., list[Encoding]], texts: list[str]) -> tuple[int, float]:
    """Tokens, and seconds to encode the texts and take out their ids."""
    began, tokens = time.perf_counter(), 0
    for first in range(0, len(texts), BATCH_DOCUMENTS):
        encoded = encode(texts[first : first + BATCH_DOCUMENTS], add_special_tokens=False)
        tokens += sum(len(np.array(encoding.ids, np.uint16)) for encoding in encoded)
    return tokens, time.perf_counter() - began


def stream_rate(folder: Path, policy: str) -> float:
    """Masked positions a second, in one thread."""
    stream = Stream(folder, "train", StreamSettings(masking=MaskingSettings(policy=policy)), 64)
    began = time.perf_counter()
    positions = sum(stream.batch(64 * update, 0, 1, 64, 0).input_ids.size for update in range(UPDATES))
    return positions / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
