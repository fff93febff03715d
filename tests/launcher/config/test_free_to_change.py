"""A mark on a field is all that a setting needs to be free to change when a run continues."""

from typing import Annotated

from pydantic import BaseModel, Field

from launcher.config.free_to_change import FREE_TO_CHANGE, marked_settings
from stillhouse.settings import FREE


class Inner(BaseModel):
    """A section."""

    fixed: int = 1
    plain: Annotated[int, FREE] = 1
    bounded: Annotated[int, Field(gt=0), FREE] = 1
    optional: Annotated[Annotated[int, Field(gt=0)] | None, FREE] = None


class Outer(BaseModel):
    """Sections: whole, in part, and in a list."""

    whole: Annotated[Inner, FREE] = Inner()
    part: Inner = Inner()
    several: Inner | list[Inner] | None = None


def test_marked_fields_are_found_in_sections_optional_fields_and_lists():
    inner = ["plain", "bounded", "optional"]
    expected = ["whole", *(f"part.{name}" for name in inner), *(f"several.{name}" for name in inner * 2)]
    assert list(marked_settings(Outer)) == expected
    assert Inner.model_fields["bounded"].metadata[0].gt == 0, "the mark leaves the bounds alone"


def test_the_settings_of_a_run_that_may_change_are_these():
    assert sorted(FREE_TO_CHANGE) == sorted(
        [
            *("run", "report", "checkpoint", "evaluate", "teacher.mode", "teacher.cache"),
            *("data.shards", "data.cache_folder", "data.on_corrupt", "data.max_skipped_shards"),
            *("train.micro_batch", "train.zero_stage", "train.attention", "train.activation_checkpointing", "train.chunk_tokens"),
            *("train.loader_workers", "train.prefetch_updates", "train.max_bad_updates", "train.spike_factor", "train.roll_backs"),
            *("train.timeout_seconds", "train.check_memory", "train.try_largest_batch", "train.teacher_stream", "train.tf32"),
            "train.compile",
            *("data.folder", "data.train", "data.dev", "data.test", "data.unlabelled"),  # of a task: the content decides
        ]
    )
