"""The page of a run: what it says, that untrusted texts stay text, and that it stays small."""

import json
import re
from pathlib import Path

import pytest
from outline import Outline
from run_folders import HOSTILE, LINES, event, make_run, train

from launcher.errors import LaunchError
from launcher.run_page.page import MOST_BYTES, labels_of, page
from launcher.run_page.record import read_run


def rendered(*folders: Path) -> tuple[str, Outline]:
    html = page([read_run(folder) for folder in folders], 1_700_000_000.0)
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    return html, outline


def test_a_page_says_what_was_trained_from_what_and_how_to_do_it_again(tmp_path: Path):
    folder = make_run(tmp_path / "laptop", "teacher.model=bert-base-uncased", "data.shards=shards/mine")
    _, outline = rendered(folder)
    for words in (
        "laptop",
        "Written at 2023-11-14 22:13 UTC",
        "update 100 of 100 (100.0 %), 25,600 tokens",
        "made from the teacher, layers every_other",
        "12,345 parameters, 49.4 kB",
        "bert-base-uncased (mode replicated)",
        "shards/mine, window tokens 32",
        "train: 540 documents, 21,000 tokens, vocabulary 29, fingerprint ffff",
        "12 updates, 8 rows an update, micro-batch 2",
        "soft_targets weight 5, positions all, temperature 2",
        "loss 4.100, top-1 25.0 %",
        "1 min 05 s",
        "1,060 tokens/s in the median report",
        "skipped update loss not finite at update 50",
        "1 checkpoint written, the newest after update 100, 1 MB, 0.5 s each on average.",
        f"stillhouse train --config {folder}/config.yaml run.folder={folder}-again",
        "not recorded: layer similarity (layer_map: cka or evaluate.layer_similarity_every records it); sample predictions",
    ):
        assert words in outline.text, words


def test_each_number_has_a_plot_with_a_description_and_a_table(tmp_path: Path):
    _, outline = rendered(make_run(tmp_path / "run"))
    plots = [chart for chart in outline.of("svg") if chart.get("role") == "img"]
    assert len(plots) == 12 - 1, "skipped updates are 0 throughout"
    assert len(outline.of("figure")) == len(plots)
    assert "Term cosine, unweighted One curve against update. run: from 0.35 at update 10 to 0.26 at update 100;" in outline.text
    known = {attributes["id"] for _, attributes in outline.elements if "id" in attributes}
    named = [name for _, attributes in outline.elements for name in (attributes.get("aria-labelledby") or "").split()]
    assert set(named) <= known
    identities = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_regions_that_scroll_can_be_reached_by_keyboard_and_have_a_name(tmp_path: Path):
    _, outline = rendered(make_run(tmp_path / "run"))
    regions = [region for region in outline.of("div") if region.get("class") == "scroll"]
    assert regions
    assert all(region.get("tabindex") == "0" and region.get("role") == "region" and region.get("aria-labelledby") for region in regions)
    assert all(cell.get("scope") for cell in outline.of("th"))
    assert outline.of("html")[0]["lang"] == "en"


def test_two_runs_share_plots_with_a_legend_and_differing_settings(tmp_path: Path):
    other = [line | ({"loss": 2 * line["loss"]} if line["kind"] == "train" else {}) for line in LINES]
    one = make_run(tmp_path / "one", "optimizer.learning_rate=1e-3")
    two = make_run(tmp_path / "two", "optimizer.learning_rate=2e-3", lines=other)
    html, outline = rendered(one, two)
    assert "2 runs: one, two" in outline.text
    assert "one: from 20.000 at update 10" in outline.text
    assert "two: from 40.000 at update 10" in outline.text
    assert "optimizer.learning_rate 0.001 0.002" in outline.text
    assert "Settings that differ: 1" in outline.text
    assert "against tokens" in outline.text
    assert "Held-out loss, nats, against tokens" in outline.text
    assert "hours since the start" in outline.text
    assert html.count('class="curve s1 d1"') > html.count('class="curve s0 d0"') // 2


def test_runs_of_one_name_are_told_apart(tmp_path: Path):
    records = [read_run(make_run(tmp_path / name, "run.name=same")) for name in ("a", "b")]
    labels = labels_of(records)
    assert [label[-2:] for label in labels] == ["/a", "/b"]
    assert max(map(len, labels)) <= 60
    assert [label[-6:] for label in labels_of([records[0], records[0]])] == ["/a (1)", "/a (2)"]


def test_untrusted_texts_stay_text(tmp_path: Path):
    lines = [*LINES, event(100, HOSTILE, HOSTILE), train(101, **{f"loss/{HOSTILE}": 1.0, "phase": HOSTILE})]
    folder = make_run(tmp_path / "run", f"run.name={HOSTILE}", f"data.shards={HOSTILE}", f"teacher.model={HOSTILE}", lines=lines)
    (folder / "predictions.jsonl").write_text(json.dumps({"id": HOSTILE, "label": HOSTILE, "prediction": HOSTILE}) + "\nno json\n")
    (folder / "layer_maps.txt").write_text(f"teacher {HOSTILE}\n 0  0.50  0.75*\n")
    for html, outline in (rendered(folder), rendered(folder, folder)):
        assert not outline.of("script", "img", "iframe", "object", "form", "base", "audio", "video")
        assert not [name for _, attributes in outline.elements for name in attributes if name.startswith("on")]
        assert "alert(1)" in outline.text
        assert len(outline.of("title")) == html.count("<title")
        assert not re.search(r"(?:src|href)=\"(?!#|data:,)", html)
        assert "default-src 'none'" in html


def test_credentials_are_not_shown(tmp_path: Path):
    folder = make_run(tmp_path / "run", lines=[*LINES, event(100, "note", "https://me:planted@host/a?token=planted")])
    settings = (folder / "config.yaml").read_text().replace("shards/tiny", "https://me:planted@host/shards?token=planted")
    (folder / "config.yaml").write_text(settings)
    html, outline = rendered(folder)
    assert "planted" not in html
    assert "***" in outline.text
    assert "enter them again" in outline.text


def test_layer_similarity_and_predictions_are_shown_where_they_are_recorded(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    (folder / "layer_maps.txt").write_text(" student \\ teacher  0      1\n ─────\n 0   0.91*  0.25 \n 1   0.10   0.83*\nlayer_map: […]\n")
    (folder / "layer_similarity.txt").write_text("update 40\n student \\ teacher  0      1\n 0   0.95*  0.35 \n 1   0.20   0.93*\n")
    lines = [{"id": str(n), "label": "yes", "prediction": "yes" if n else "no", "logits": [0.5, n]} for n in range(9)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, outline = rendered(folder)
    assert "0.91 in the map 0.25 1 0.10 0.83 in the map" in outline.text
    assert "Student layers and teacher layers after update 40" in outline.text
    assert "0.95 in the map 0.35 1 0.20 0.93 in the map" in outline.text
    assert "8 of 9 predictions equal their label." in outline.text
    assert "0 yes no [0.5, 0] 1 yes yes [0.5, 1]" in outline.text


@pytest.mark.slow
def test_a_long_run_stays_small(tmp_path: Path):
    long = [
        train(update, 100_000, loss=(None if update % 1000 == 0 else 5 + (update * 7919 % 1000) / 1000)) for update in range(1, 100_001)
    ]
    folder = make_run(tmp_path / "run", lines=[*long, *(event(n, "loss_spike", "spike " * 50) for n in range(1, 2001))])
    html, outline = rendered(folder)
    assert len(html.encode()) < MOST_BYTES
    assert "1,960 more" in outline.text


@pytest.mark.parametrize(
    ("lines", "done", "state"),
    [
        ([], False, "not started: no update yet"),
        (LINES[:3], False, "ended after update 20 without a final event"),
        ([*LINES[:3], event(20, "stopped", "saved", reason="requested")], False, "stopped on request at update 20"),
        ([*LINES[:3], event(20, "stopped", "10 bad updates", reason="not_finite")], False, "stopped at update 20: 10 bad updates"),
        ([*LINES[:3], event(20, "export_failed", "no room")], False, "its student was not written: no room"),
        (LINES, True, "done"),
    ],
)
def test_the_state_of_a_run_is_said(tmp_path: Path, lines: list[dict], done: bool, state: str):
    _, outline = rendered(make_run(tmp_path / "run", lines=lines, done=done))
    assert state in outline.text


def test_what_is_missing_or_damaged_is_named(tmp_path: Path):
    folder = make_run(tmp_path / "run", lines=[], done=False)
    (folder / "environment.json").write_text("{")
    (folder / "config.yaml").write_text("run: [")
    _, outline = rendered(folder)
    assert "not recorded: settings (config.yaml: expected YAML, got" in outline.text
    assert "environment (environment.json: " in outline.text
    assert "size and final scores (no report.json); curves (no train line yet)" in outline.text


def test_a_folder_that_is_no_run_and_damaged_numbers_are_one_line(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"expected a run folder with config.yaml, got none; check the path$"):
        read_run(tmp_path)
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("no json\n")
    with pytest.raises(LaunchError, match=r"metrics.jsonl: line 1: expected a report line"):
        read_run(folder)


def test_masked_sentences_stand_with_the_guesses_of_both_models_and_stay_text(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    guesses = {"student": [["ba", 0.5], [HOSTILE, 0.25]], "teacher": [["mer", 0.75]]}
    lines = [{"id": "window 0, token 9", "text": f"de [MASK] {HOSTILE}", "label": "mer", "prediction": "ba", **guesses, "update": 12}]
    lines += [{"id": "window 1, token 4", "text": "x", "label": "y", "prediction": "z", "student": [["z", 1.0], [1]], "teacher": []}]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html, outline = rendered(folder)
    assert "First guesses after update 12." in outline.text
    assert "<b>mer</b> <small>75.0 %</small>" in html
    assert "ba <small>50.0 %</small>" in html
    assert "not computed" in outline.text
    assert "<script" not in html
    assert "sample predictions (" not in outline.text


def test_the_rate_of_matrix_products_is_a_fact_of_the_environment(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    facts = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(facts | {"gemm": {"precision": "bf16", "tflops": 1.0, "tflops_per_rank": 0.5}}))
    _, outline = rendered(folder)
    assert "matrix products, measured 0.5 TFLOP/s a rank in bf16" in outline.text


def test_similarities_of_layers_share_a_plot(tmp_path: Path):
    lines = [train(n, **{"cka/0": 0.5 + n / 1000, "cka/1": 0.25, "cka_layer/0": 1.0, "cka_layer/1": 3.0}) for n in range(10, 101, 10)]
    _, outline = rendered(make_run(tmp_path / "run", lines=lines))
    assert "CKA with the nearest teacher layer 2 curves against update." in outline.text
    assert "layer similarity (" not in outline.text
