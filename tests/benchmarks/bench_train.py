"""Speed and memory of the trainer against bare torch loops, as ratios taken interleaved in one run.

    make bench        (about two minutes; writes tests/benchmarks/results/bench_train.json)

Five ways, each in a process of its own, started in turn so that a noisy machine disturbs all alike:

trainer  kd.training.trainer.Trainer on one process: DeepSpeed, chunked head, packed windows, masked positions
bare     the same models, batches and losses in a plain torch loop (gradients, clipping, AdamW), logits of masked positions whole
padded   DistilBERT's way: one document a row, padded; whole logits of every position, KL over all real tokens, bare torch
all      the trainer with KL over all real tokens, for the comparison with `padded`
stream   shards to masked batches alone
two      the trainer on two processes

Every figure is per real token (padding is not counted). Peak memory is the process's, above what it held before the first update.
"""

import argparse
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.sources.settings import SourceSettings
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.distributed import process_group
from kd.distributed.precision import on_this_machine
from kd.models.config import quiet_transformers
from kd.models.loading import load_mlm
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teachers
from kd.terms import HiddenCosine, MaskedLM, SoftTargets
from kd.terms.schedules import OptimizerSettings
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer
from launcher.training.batches import BatchLoader

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "bench_train.json"
WINDOW, GLOBAL_BATCH, MICRO_BATCH, SEED = 128, 32, 16, 7
TEACHER_LAYERS, STUDENT_LAYERS, WIDTH, VOCABULARY = 6, [1, 3, 5], 384, 30522
WAYS = ("trainer", "bare", "all", "padded")


def prepare(folder: Path) -> None:
    """A random 6 x 384 BERT over 30,522 ids, and shards of invented documents of 20 to 300 words: sizes are real, words need not be."""

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    names = [*special.values(), *(f"w{n}" for n in range(VOCABULARY - len(special)))]
    backend = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **special).save_pretrained(folder / "teacher")
    torch.manual_seed(SEED)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": TEACHER_LAYERS, "num_attention_heads": 12, "intermediate_size": 4 * WIDTH}
    with quiet_transformers():
        BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(folder / "teacher")
    draw = random.Random(SEED)
    documents = (" ".join(f"w{int(draw.paretovariate(0.6)) % 30000}" for _ in range(draw.randint(20, 300))) for _ in range(6000))
    (folder / "texts.txt").write_text("\n".join(documents))
    source = SourceSettings(path=str(folder / "texts.txt"))
    build(BuildSettings(sources=(source,), tokenizer=str(folder / "teacher"), heldout=0.0), folder / "shards")


def measure(way: str, folder: Path, updates: int, warmup: int) -> dict[str, Any]:
    """One way in this process: tokens per second over `updates`, and peak memory."""

    process_group.start()
    rank, world = process_group.rank(), process_group.world_size()
    precision = on_this_machine().precision
    padded = way == "padded"
    settings = StreamSettings(window_tokens=WINDOW, packing="documents" if padded else "windows", bin_width=WINDOW if padded else 32)
    stream = Stream(folder / "shards", "train", settings, GLOBAL_BATCH)
    if way == "stream":
        seconds, tokens = [], 0
        for update in range(200):
            started = time.perf_counter()
            batch = stream.batch(update * GLOBAL_BATCH, 0, 1, GLOBAL_BATCH, 0)
            seconds.append(time.perf_counter() - started)
            tokens += int((batch.segments > 0).sum())
        return {"tokens_per_second": tokens / sum(seconds)}
    train = TrainSettings(global_batch=GLOBAL_BATCH, micro_batch=MICRO_BATCH, updates=updates + warmup, precision=precision)
    optimizer = OptimizerSettings(learning_rate=1e-4, schedule="constant", warmup=0)
    teacher_path = str(folder / "teacher")
    attention = "eager" if precision == "bf16" and process_group.device().type == "cpu" else "sdpa"
    student = make_student(StudentSettings(layers=STUDENT_LAYERS, dropout=0.0), load_mlm(teacher_path), SEED)
    student.hf.set_attn_implementation(attention)
    loader = BatchLoader(stream, train, rank=rank, world=world, update=0, windows=0)
    positions = "all" if way in ("all", "padded") else "masked"
    terms = [SoftTargets(weight=5, positions=positions), MaskedLM(weight=2), HiddenCosine()]
    if way in ("trainer", "all", "two"):
        trainer = Trainer(
            student,
            make_teachers([MemberSettings(model=teacher_path)], "mean", SEED, precision, process_group.device()),
            phases_of([], terms, optimizer, updates + warmup),
            vocabulary=VOCABULARY,
            train=train,
            precision=precision,
        )
        step = trainer.update
    else:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.backends.mkldnn.matmul.fp32_precision = "none"  # as torch multiplies by itself
        step = BareLoop(student, load_mlm(teacher_path, dtype=dtype), positions, optimizer, dtype).update
    before = psutil.Process().memory_info().rss
    seconds, tokens, losses = [], 0, []
    for number in range(warmup + updates):
        batches = loader.next_update()
        started = time.perf_counter()
        report = step(batches)
        if number >= warmup:
            seconds.append(time.perf_counter() - started)
            tokens += sum(int(batch.real.sum()) for batch in batches) * world
        losses.append(report.loss if hasattr(report, "loss") else report)
    loader.close()

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens_per_second": tokens / sum(seconds),
        "peak_memory_mb": peak / 1e6,
        "peak_above_start_mb": (peak - before) / 1e6,
        "data_wait_share": loader.waited_seconds / (sum(seconds) * (warmup + updates) / updates),
        "losses": losses,
        "precision": precision,
        "threads": torch.get_num_threads(),
    }


class BareLoop:
    """What a researcher would write: fp32 masters beside the bf16 weights, one backward a micro-batch, nothing shared with kd's step."""

    def __init__(self, student: Any, teacher: Any, positions: str, optimizer: Any, dtype: Any) -> None:

        self.student, self.teacher, self.positions = student.to(dtype), teacher.eval(), positions
        self.parameters = [p for p in student.parameters() if p.requires_grad]
        self.masters = [p.detach().clone().float() for p in self.parameters] if dtype != torch.float32 else self.parameters
        decay = [p for p in self.masters if p.dim() >= 2], [p for p in self.masters if p.dim() < 2]
        groups = [{"params": decay[0], "weight_decay": optimizer.weight_decay}, {"params": decay[1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=optimizer.learning_rate, betas=optimizer.betas, eps=optimizer.epsilon, fused=True)

    def update(self, batches: list[Any]) -> float:
        """One update; its loss."""
        masked_total = sum(int(b.predicted.sum()) for b in batches)
        real_total = sum(int(b.real.sum()) for b in batches)
        looked = real_total if self.positions == "all" else masked_total
        total = 0.0
        for batch in batches:
            at = batch.real if self.positions == "all" else batch.predicted
            with torch.no_grad():
                taught = self.teacher(batch).last_hidden
                guide = self.teacher.logits(taught[at]).float()
            last = self.student(batch).last_hidden
            logits = self.student.logits(last[at]).float()
            p = F.log_softmax(guide / 2, -1)
            kl = F.kl_div(F.log_softmax(logits / 2, -1), p, reduction="none", log_target=True).sum() * 4 / looked
            mlm = F.cross_entropy(logits, batch.labels[at], ignore_index=-100, reduction="sum") / masked_total
            cosine = (1 - F.cosine_similarity(last[batch.real].float(), taught[batch.real].float(), dim=-1)).sum() / real_total
            loss = 5 * kl + 2 * mlm + cosine
            loss.backward()
            total += float(loss.detach())
        if self.masters is not self.parameters:
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.masters, 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.masters is not self.parameters:
            with torch.no_grad():
                for master, parameter in zip(self.masters, self.parameters, strict=True):
                    parameter.copy_(master)
        return total


def in_processes(way: str, folder: Path, updates: int, warmup: int) -> dict[str, Any]:
    """One way in fresh processes; rank 0's figures."""
    ranks = 2 if way == "two" else 1
    threads = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(ranks):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        if ranks > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--updates", str(updates), "--warmup", str(warmup)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{way}: failed")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="how often each way is taken in turn (2)")
    parser.add_argument("--updates", type=int, default=3, help="timed updates (3)")
    parser.add_argument("--warmup", type=int, default=1, help="updates before the clock (1)")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, Path(arguments.folder), arguments.updates, arguments.warmup)))
        return

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in (*WAYS, "stream", "two")}
        for number in range(arguments.rounds):
            for way in rounds:
                if way in ("stream", "two") and number:
                    continue
                rounds[way].append(in_processes(way, folder, arguments.updates, arguments.warmup))
                print(way, json.dumps({k: round(v, 3) for k, v in rounds[way][-1].items() if isinstance(v, float)}), flush=True)
    summary = summarise(rounds)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"summary": summary, "rounds": rounds}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


def summarise(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Ratios, each the median over the rounds of figures taken next to each other."""

    def ratio(a: str, b: str, figure: str) -> float:
        return statistics.median(x[figure] / y[figure] for x, y in zip(rounds[a], rounds[b], strict=True))

    first = {way: taken[0] for way, taken in rounds.items()}
    return {
        "trainer / bare, tokens/s": ratio("trainer", "bare", "tokens_per_second"),
        "trainer / bare, peak memory": ratio("trainer", "bare", "peak_memory_mb"),
        "trainer / padded rows with whole logits, tokens/s": ratio("trainer", "padded", "tokens_per_second"),
        "trainer / padded rows with whole logits, peak memory": ratio("trainer", "padded", "peak_memory_mb"),
        "trainer with KL on all tokens / padded, tokens/s": ratio("all", "padded", "tokens_per_second"),
        "trainer with KL on all tokens / padded, peak memory": ratio("all", "padded", "peak_memory_mb"),
        "stream / trainer, tokens/s": first["stream"]["tokens_per_second"] / first["trainer"]["tokens_per_second"],
        "two processes / one, tokens/s": first["two"]["tokens_per_second"] / first["trainer"]["tokens_per_second"],
        "data wait share": statistics.median(x["data_wait_share"] for x in rounds["trainer"]),
        "largest loss difference trainer - bare": max(
            abs(a - b) / b for a, b in zip(first["trainer"]["losses"], first["bare"]["losses"], strict=True)
        ),
    }


if __name__ == "__main__":
    main()
