"""A task model gives what transformers gives, whatever the family, the padding and the order of labels."""

import pytest
import torch

from kd.errors import KdError
from kd.models.capture import capture
from kd.models.states import StateKey
from kd.tasks.loading import load_task, load_with_head
from kd.tasks.model import TaskEncoder
from tests.kd.conftest import MODELS
from tests.kd.tasks.conftest import CASES, LABELS, task_batch, task_model

pytestmark = pytest.mark.tasks


def as_is(where, names):
    return list(range(len(names)))


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_logits_and_states_are_those_of_transformers(family, kind):
    model = task_model(family, kind)
    task = TaskEncoder(model, kind)
    batch = task_batch(kind, pad=model.config.pad_token_id)
    types = {"token_type_ids": batch.token_types} if task.reads_token_types else {}
    with torch.no_grad():
        ours = capture(task, batch, frozenset({StateKey("hidden", 1), StateKey("hidden", task.layers - 1)}))
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.segments, output_hidden_states=True, **types)
    logits = torch.stack([theirs.start_logits, theirs.end_logits], -1) if kind == "question_answering" else theirs.logits
    assert torch.equal(ours.logits, logits)
    real = batch.real
    assert torch.equal(ours.states[StateKey("hidden", 1)][real], theirs.hidden_states[2][real])
    assert ours.last_hidden.shape == (*batch.input_ids.shape, task.width)


@pytest.mark.parametrize("family", MODELS)
def test_padding_does_not_change_a_row(family):
    model = task_model(family, "classification")
    task, batch = TaskEncoder(model, "classification"), task_batch("classification", pad=model.config.pad_token_id)
    with torch.no_grad():
        together = task(batch).logits
        alone = [task(task_batch_row(batch, row)).logits[0] for row in range(len(together))]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=2e-6)


def task_batch_row(batch, row):
    length = int(batch.segments[row].sum())
    cut = {name: getattr(batch, name)[row : row + 1, :length] for name in ("input_ids", "labels", "positions", "segments", "token_types")}
    return type(batch)(**cut, windows=batch.windows[row : row + 1], targets=batch.targets[row : row + 1], kind=batch.kind)


def test_labels_in_another_order_are_turned_by_name(saved_task):
    folder = saved_task("bert", "classification", ["up", "down", "flat"])
    own = load_task(str(folder), "classification", as_is)
    turned = load_task(str(folder), "classification", lambda where, names: [names.index(label) for label in LABELS])
    batch = task_batch("classification")
    with torch.no_grad():
        assert torch.equal(turned(batch).logits, own(batch).logits[:, [1, 2, 0]])
    assert turned.labels == LABELS
    assert own.labels == ["up", "down", "flat"]


def test_a_folder_without_a_head_is_no_teacher(make_model, tmp_path):
    make_model("bert").save_pretrained(tmp_path / "mlm")
    with pytest.raises(KdError, match=r"mlm: expected a model fine-tuned for classification, got one without .*; fine-tune it first"):
        load_task(str(tmp_path / "mlm"), "classification", as_is)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_masked_language_model_gets_a_fresh_head_drawn_by_seed(family, kind, make_model, tmp_path):
    make_model(family).save_pretrained(tmp_path / "mlm")
    labels = [] if kind in ("regression", "question_answering") else LABELS
    first, again, other = (load_with_head(str(tmp_path / "mlm"), kind, labels, seed) for seed in (1, 1, 2))
    assert first.fresh
    assert all(name in first.encoder.head_names for name in first.fresh)
    weights = [dict(one.encoder.hf.named_parameters()) for one in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    matrices = [name for name in first.fresh if weights[0][name].dim() == 2]
    assert all(not torch.equal(weights[0][name], weights[2][name]) for name in matrices)
    source = make_model(family).state_dict()
    base = first.encoder.family.base
    body = [name for name in weights[0] if name.startswith(f"{base}.") and not name.startswith(f"{base}.pooler.")]
    assert all(torch.equal(weights[0][name], source[name]) for name in body)


def test_a_head_for_other_labels_starts_fresh_and_one_for_the_same_is_kept(saved_task):
    folder = saved_task("bert", "classification", LABELS)
    assert load_with_head(str(folder), "classification", LABELS, 1).fresh == []
    renamed = load_with_head(str(folder), "classification", ["a", "b", "c"], 1)
    assert "classifier.weight" in renamed.fresh
    assert renamed.encoder.labels == ["a", "b", "c"]
    two = load_with_head(str(folder), "classification", ["no", "yes"], 1)
    assert two.encoder.hf.classifier.weight.shape[0] == 2
    kept, stored = load_with_head(str(folder), "classification", LABELS, 1), task_model("bert", "classification")
    assert torch.equal(kept.encoder.hf.classifier.weight, stored.classifier.weight)


def test_an_encoder_that_lacks_weights_is_refused(saved_task):
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    folder = saved_task("bert", "classification")
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for read in (lambda: load_task(str(folder), "classification", as_is), lambda: load_with_head(str(folder), "classification", LABELS, 1)):
        with pytest.raises(KdError, match=r"expected every weight that config.json describes"):
            read()
