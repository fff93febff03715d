"""Speed of fine-tuning on a task against a bare torch loop and transformers' Trainer, as ratios taken interleaved in one process.

    python tests/benchmarks/bench_tasks.py        (about ten minutes; writes tests/benchmarks/results/bench_tasks.json)

A BERT of 6 layers x 384 with random weights, 3,668 pairs of MRPC's lengths, batches of 32 rows in fp32. Every way has the same rows.

run      a task run's updates: loader, kd.training.trainer.Trainer, DeepSpeed
bare     the same batches in a plain torch loop: gradients, clipping, AdamW
trainer  transformers' Trainer on the same batches; left out where `accelerate` is not installed
own      the Trainer on rows of its own choice: group_by_length, padding to the longest row, its own loader. In fp32, and in bf16
         (its autocast against our bf16 weights). Its steps and our updates take turns in a callback.

bare, trainer and own multiply fp32 matrices as torch does by itself, and the run as it chooses (kd.kernels.fp32_products).

A ratio is the median over rounds of the other way's CPU seconds divided by ours: above 1, the run is faster. CPU time is that of all
threads of the process, so other work on the machine counts little.

distil: the same rows with that model as the teacher of its layers 0, 2 and 4. Updates that read the teacher's kept outputs alternate with
updates that compute them. The pass over all rows that makes the outputs counts once, so the gain depends on the number of epochs.
"""

import importlib.util
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from kd.distributed import process_group
from kd.kernels import fp32_products
from kd.models.config import quiet_transformers
from launcher.config.load import load_run
from launcher.tasks.build import build_task
from launcher.tasks.source import TaskSource
from launcher.training.batches import BatchLoader

RESULTS = Path(__file__).parent / "results" / "bench_tasks.json"
ROWS, BATCH, SEED, ROUNDS, UPDATES, WORDS = 3668, 32, 7, 7, 3, 30000
OWN_ROWS = 1024


def prepare(folder: Path) -> str:
    """The path of a configuration on invented pairs of 15 to 40 words, the lengths of MRPC's sentences."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    names = [*special.values(), *(f"w{number}" for number in range(WORDS))]
    backend = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **special).save_pretrained(folder / "model")
    torch.manual_seed(SEED)
    with quiet_transformers():
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        BertForMaskedLM(BertConfig(vocab_size=len(names), **sizes)).save_pretrained(folder / "model")
    draw = random.Random(SEED)

    def text() -> str:
        return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(15, 40)))

    for split, count in (("train", ROWS), ("dev", 64)):
        rows = [{"sentence1": text(), "sentence2": text(), "label": ("no", "yes")[number % 2]} for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl")}
    values = {
        "run": {"folder": str(folder / "run")},
        "data": {"kind": "classification", **files, "columns": {"text": "sentence1", "text_pair": "sentence2"}, "max_length": 128},
        "student": {"init": str(folder / "model"), "architecture": "same"},
        "train": {"global_batch": BATCH, "micro_batch": BATCH, "updates": 1000, "precision": "fp32", "zero_stage": 0, "clip": 1.0},
        "optimizer": {"learning_rate": 5e-5},
    }
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def distil_words(folder: Path) -> list[str]:
    """The settings of a distillation with a teacher of random weights."""
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(folder / "model", **labels)
    model.save_pretrained(folder / "teacher")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "model" / name, folder / "teacher" / name)
    student = ["student.init=teacher", "student.layers=every_other"]
    return [f"teacher.model={folder}/teacher", "teacher.allow_untrained=true", *student]


def distil(path: str, folder: Path) -> dict[str, Any]:
    """The gain of kept outputs: interleaved updates, and the one pass that makes them."""
    os.environ["STILLHOUSE_CACHE"] = str(folder / "cache")
    words = distil_words(folder)
    ways, loaders = {}, {}
    for way, more in (("computed", ["teacher.cache_outputs=false"]), ("kept", ["teacher.cache_outputs=true"])):
        config = load_run(path, [*words, *more])
        began = time.process_time()
        ways[way] = build_task(config, TaskSource.read(config), None)
        building = time.process_time() - began
        at = {"rank": 0, "world": 1, "update": 0, "windows": 0}
        loaders[way] = BatchLoader(ways[way].stream, config.train, **at, to_batch=ways[way].to_batch)
    began = time.process_time()
    build_task(config, TaskSource.read(config), None)  # the same, from the file
    labelling = building - (time.process_time() - began)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, parts in ways.items():
            began = time.process_time()
            for _ in range(UPDATES):
                parts.trainer.update(loaders[way].next_update())
            if number:
                seconds[way].append((time.process_time() - began) / UPDATES)
    for loader in loaders.values():
        loader.close()
    ratio = statistics.median(b / a for a, b in zip(seconds["kept"], seconds["computed"], strict=True))
    kept, computed = statistics.median(seconds["kept"]), statistics.median(seconds["computed"])
    updates = ROWS / BATCH
    gain = {epochs: epochs * updates * computed / (labelling + epochs * updates * kept) for epochs in (1, 3, 10)}
    return {
        "computed_to_kept_per_update": round(ratio, 3),
        "seconds_per_update": {"computed": round(computed, 3), "kept": round(kept, 3)},
        "seconds_to_make_the_outputs": round(labelling, 1),
        "whole_run_ratio_by_epochs": {str(epochs): round(value, 3) for epochs, value in gain.items()},
    }


def inputs_of(batch: Any) -> dict[str, torch.Tensor]:
    """The arguments of a transformers model for a batch of ours."""
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.real.long(),
        "token_type_ids": batch.token_types,
        "labels": batch.targets,
    }


def bare_loop(model: Any) -> Callable[[list[Any]], None]:
    """Updates in plain torch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)

    @fp32_products.torchs_own()
    def steps(batches: list[Any]) -> None:
        for batch in batches:
            model(**inputs_of(batch)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return steps


class Clock(TrainerCallback):
    """Seconds from the first step's start to the last step's end, without the Trainer's setting up."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def on_step_begin(self, _arguments: Any, state: Any, _control: Any, **_more: Any) -> None:
        """Start with the first step."""
        self.begin = self.begin or time.process_time()

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_more: Any) -> None:
        """The last step counts."""
        self.end = time.process_time()


def trainer_seconds(model: Any, batches: list[Any], folder: Path) -> float:
    """Seconds of as many steps of transformers' Trainer as there are batches; the batches are made before."""
    rows = [inputs_of(batch) for batch in batches]
    clock = Clock()
    settings = {"max_steps": len(rows), "per_device_train_batch_size": 1, "max_grad_norm": 1.0, "learning_rate": 5e-5, "weight_decay": 0.01}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    arguments = TrainingArguments(output_dir=str(folder), **settings, **quiet)
    with fp32_products.torchs_own():
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=lambda rows: rows[0], callbacks=[clock]).train()
    return clock.end - clock.begin


class Turns(TrainerCallback):
    """CPU seconds and rows of the Trainer's steps and of our updates, which take turns of UPDATES."""

    def __init__(self, update: Callable[[], None]) -> None:
        self.update = update
        self.taken: dict[str, list[float]] = {"run": [], "own": []}
        self.mark = 0.0

    def on_step_begin(self, _arguments: Any, _state: Any, _control: Any, **_more: Any) -> None:
        """The first turn begins."""
        self.mark = self.mark or time.process_time()

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_more: Any) -> None:
        """After the Trainer's turn comes ours. The loader's work for the next step belongs to the Trainer's turn."""
        if state.global_step % UPDATES:
            return
        self.taken["own"].append(time.process_time() - self.mark)
        fp32_products.choose()
        began = time.process_time()
        for _ in range(UPDATES):
            self.update()
        self.taken["run"].append(time.process_time() - began)
        torch.backends.mkldnn.matmul.fp32_precision = "none"
        self.mark = time.process_time()


def own_settings(path: str, folder: Path, precision: str) -> float:
    """The Trainer's seconds over ours, both with their own order of rows and their own padding, over an epoch of a part of the rows."""
    config = load_run(path, [f"train.precision={precision}", f"data.max_rows={OWN_ROWS}"])
    source = TaskSource.read(config)
    parts = build_task(config, source, None)
    loader = BatchLoader(parts.stream, config.train, rank=0, world=1, update=0, windows=0, to_batch=parts.to_batch)
    task = source.encoded("train", str(folder / "model"))
    cuts = task.offsets.tolist()
    rows = [
        {"input_ids": task.ids[a:b].tolist(), "token_type_ids": task.token_types[a:b].tolist(), "labels": int(label)}
        for a, b, label in zip(cuts, cuts[1:], task.labels if task.labels is not None else (), strict=False)
    ]
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(folder / "model").train()
    turns = Turns(lambda: parts.trainer.update(loader.next_update()) and None)
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": BATCH, "learning_rate": 5e-5, "weight_decay": 0.01}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    arguments = TrainingArguments(
        output_dir=str(folder / "own"), train_sampling_strategy="group_by_length", bf16=precision == "bf16", **settings, **quiet
    )
    collate = DataCollatorWithPadding(source.tokenizer(str(folder / "model")))
    with fp32_products.torchs_own():
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[turns]).train()
    loader.close()
    return sum(turns.taken["own"][1:]) / sum(turns.taken["run"][1:])


def main() -> None:
    """Print and write the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = prepare(folder)
        config = load_run(path)
        process_group.start(60)
        parts = build_task(config, TaskSource.read(config), None)
        loader = BatchLoader(parts.stream, config.train, rank=0, world=1, update=0, windows=0, to_batch=parts.to_batch)
        with quiet_transformers():
            models_of = {way: AutoModelForSequenceClassification.from_pretrained(folder / "model").train() for way in ("bare", "trainer")}
        bare = bare_loop(models_of["bare"])
        there = importlib.util.find_spec("accelerate") is not None
        seconds: dict[str, list[float]] = {"run": [], "bare": []} | ({"trainer": []} if there else {})
        for number in range(ROUNDS + 1):
            batches = []
            began = time.process_time()
            for _ in range(UPDATES):
                batches.append(loader.next_update())
                parts.trainer.update(batches[-1])
            took = {"run": time.process_time() - began}
            flat = [batch for update in batches for batch in update]
            began = time.process_time()
            bare(flat)
            took["bare"] = time.process_time() - began
            if there:
                took["trainer"] = trainer_seconds(models_of["trainer"], flat, folder / "trainer")
            if number:  # the first round warms up
                for way, value in took.items():
                    seconds[way].append(value)
        loader.close()
        own = {one: round(own_settings(path, folder, one), 3) for one in ("fp32", "bf16")} if there else {}
        kept = distil(path, folder)
        process_group.stop()
    ratios = {way: statistics.median(b / a for a, b in zip(seconds["run"], seconds[way], strict=True)) for way in seconds if way != "run"}
    rate = {way: round(BATCH * UPDATES / statistics.median(values), 1) for way, values in seconds.items()}
    result = {
        "ratio_to": {way: round(value, 3) for way, value in ratios.items()},
        "ratio_to_the_trainer_with_its_own_settings": own,
        "rows_per_cpu_second": rate,
        "distil": kept,
        "threads": torch.get_num_threads(),
    }
    result["torch"] = torch.__version__
    if "--print" not in sys.argv:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
