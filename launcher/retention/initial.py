"""The models that students without a fine-tuned teacher start from: layers of the base model, or the same shape with fresh weights."""

import tempfile
from pathlib import Path

from data_shards.tokenizer.tokenizer import load_tokenizer
from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.export.model_card import CardFacts
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm, with_new_head
from kd.student.student import make_student
from launcher.retention.plan import Plan


def make_initial(plan: Plan, name: str, seed: int) -> None:
    """Write the model that a student starts from, unless it is there."""
    folder = plan.initial(name, seed)
    if (folder / "config.json").is_file():
        return
    base = plan.settings.teacher.model
    student = make_student(plan.start_config(name).student, _encoder(base, seed), seed)
    card = CardFacts(folder.name, training={"begun from": f"{plan.settings.students[name].start}: {Path(base).name}", "updates": 0})
    with tempfile.TemporaryDirectory() as tokenizer:
        load_tokenizer(base).save_pretrained(tokenizer)
        save_student(student, folder, tokenizer_folder=Path(tokenizer), card=card)


def _encoder(base: str, seed: int) -> Encoder:
    """The base model with its masked-language-model head, or with a fresh one. The head is no part of a task's student."""
    try:
        return load_mlm(base)
    except KdError:
        return with_new_head(base, seed)
