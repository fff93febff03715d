"""Models without weights, on torch's meta device: what config.json alone tells of teacher and student."""

import torch

from kd.models.config import quiet_transformers, read_config
from kd.models.encoder import Encoder
from kd.models.loading import untrained
from kd.student.settings import StudentSettings
from kd.student.student import make_student


def meta_model(path: str, new_head: bool = False) -> Encoder:
    """A model's shape without its weights, from config.json alone."""
    config = read_config(path)
    if new_head:
        config.tie_word_embeddings = True
    with torch.device("meta"):
        return untrained(config)


def meta_student(settings: StudentSettings, teacher: Encoder | None) -> Encoder:
    """The shape of the student of these settings, with what of it trains. Raises KdError as make_student does."""
    if settings.init != "teacher":  # a folder's model is what one makes of all of its own layers
        teacher = meta_model(settings.init, settings.new_head)
        same = {"init": "teacher", "layers": "first", "count": teacher.layers, "architecture": "same", "new_head": False}
        settings = settings.model_copy(update=same)
    with torch.device("meta"), quiet_transformers():
        return make_student(settings, teacher, seed=0)
