"""The page: untrusted texts are text, tables and charts can be read without eyes, nothing is loaded, and it stays small."""

import re
import tomllib
from pathlib import Path

import pytest
from outline import Outline
from report_results import HOSTILE, write_results

from launcher.report import page as page_module
from launcher.report.page import clipped, page
from launcher.report.results import Results
from launcher.report.retention import read_all, summarise


def rendered(folder: Path, results: Results) -> tuple[str, Outline]:
    predictions = read_all(results, folder)
    text = page(results, summarise(results, predictions), predictions)
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    return text, outline


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outline]:
    folder = tmp_path_factory.mktemp("report")
    return rendered(folder, write_results(folder))


def test_texts_of_examples_stay_text(whole: tuple[str, Outline]):
    _, outline = whole
    assert not outline.of("script", "img", "iframe", "object", "form", "base")
    assert len(outline.of("style")) == 1
    assert not [name for _, attributes in outline.elements for name in attributes if name.startswith("on")]
    told = outline.text
    assert HOSTILE[0] in told
    assert HOSTILE[3] in told, "a template's marks in a text are text"


def test_nothing_is_loaded_from_anywhere(whole: tuple[str, Outline]):
    text, outline = whole
    links = [attributes.get("href") or "" for attributes in outline.of("a")]
    assert all(link.startswith("#") for link in links)
    assert [attributes["href"] for attributes in outline.of("link")] == ["data:,"]
    assert not re.findall(r"url\(|@import|@font-face", text.partition("</style>")[0])
    policy = [attributes["content"] for attributes in outline.of("meta") if attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")


def test_every_table_has_a_caption_and_every_heading_a_scope(whole: tuple[str, Outline]):
    _, outline = whole
    assert len(outline.of("table")) == len(outline.of("caption")) > 20
    assert {attributes.get("scope") for attributes in outline.of("th")} == {"row", "col"}
    regions = [attributes for attributes in outline.of("div") if attributes.get("role") == "region"]
    assert len(regions) == len(outline.of("table")), "a wide table scrolls in a region that the keyboard reaches"
    assert all(
        attributes.get("tabindex") == "0" and ("aria-label" in attributes or "aria-labelledby" in attributes) for attributes in regions
    )


def test_every_chart_has_a_title_and_a_description(whole: tuple[str, Outline]):
    text, outline = whole
    drawings = [attributes for attributes in outline.of("svg") if attributes.get("aria-hidden") != "true"]
    assert len(drawings) == 2 + 7 * 2
    for drawing in drawings:
        for name in (drawing.get("aria-labelledby") or "").split():
            assert re.search(rf'<(title|desc) id="{name}">[^<]{{10,}}', text), name


def test_parts_and_pretraining_have_their_sections_with_charts_and_tables(tmp_path: Path, whole: tuple[str, Outline]):
    text, outline = rendered(tmp_path, write_results(tmp_path, ("SST-2", "STS-B"), pretrained=True))
    drawings = [attributes for attributes in outline.of("svg") if attributes.get("aria-hidden") != "true"]
    assert len(drawings) == 2 * 2 + 1 + 3, "bars and curves, quality against size, and pretraining for the mean and each task"
    for drawing in drawings:
        for name in (drawing.get("aria-labelledby") or "").split():
            assert re.search(rf'<(title|desc) id="{name}">[^<]{{10,}}', text), name
    assert len([a for a in outline.of("div") if a.get("role") == "region"]) == len(outline.of("table"))
    parts, _, after = text.partition('<h2 id="parts">')[2].partition('<h2 id="pretraining">')
    assert parts.count("distillation in pretraining<") == 3
    assert "also differs, epochs: 5 and default" in parts
    assert " noise" in parts
    table = after.partition("<table>")[2].partition("</table>")[0]
    assert "<td>368,583</td>" in table
    assert table.index("layers, distilled") < table.index("400 k, distilled") < table.index("4 M, distilled") < table.index(">teacher<")
    assert "random" not in table
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {"#parts", "#pretraining"} <= {attributes["href"] for attributes in outline.of("a")}
    assert 'id="pretraining"' not in whole[0], "students without known tokens have no curve"


def test_ids_are_distinct_and_links_lead_to_them(whole: tuple[str, Outline]):
    _, outline = whole
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    named = [attributes.get("href") for attributes in outline.of("a")] + [
        f"#{name}" for _, attributes in outline.elements for name in (attributes.get("aria-labelledby") or "").split()
    ]
    assert {name for name in named if name and name[1:] not in ids} == set()
    assert outline.of("a")[0] == {"class": "skip", "href": "#main"}
    assert outline.of("html")[0].get("lang") == "en"


def test_published_figures_stand_in_their_own_section_only(whole: tuple[str, Outline]):
    text, _ = whole
    before, _, after = text.partition('<h2 id="published">')
    assert "MobileBERT" not in before
    assert "arXiv:2004.02984" in after
    assert "were not measured here" in after


def test_it_has_two_themes_and_a_print_sheet(whole: tuple[str, Outline]):
    style = whole[0].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style
    assert "size: A4" in style


def test_colours_have_enough_contrast_in_both_themes():
    """WCAG 2.2: 4.5 for text, 3 for graphics, on the paper and on the cards."""
    style = (page_module.FOLDER / "page.css").read_text(encoding="utf-8")
    for theme in style.split("@media print")[0].split("@media (prefers-color-scheme: dark)"):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme.split("* {")[0]))
        for ground in ("paper", "card"):
            for name in ("ink", "dim", "link", "stop", "caution", "fine"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
            for number in range(8):
                assert contrast(colours[f"s{number}"], colours[ground]) >= 3, (number, ground)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_it_is_small_and_shows_fewer_examples_before_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[str, Outline]
):
    assert len(whole[0].encode()) < 1_500_000
    results = write_results(tmp_path, ("SST-2",))
    full = rendered(tmp_path, results)[0]
    monkeypatch.setattr(page_module, "MOST_BYTES", len(full) - 1)
    fewer = rendered(tmp_path, results)[0]
    assert "disagree most" in fewer
    assert len(fewer) < len(full)
    monkeypatch.setattr(page_module, "MOST_BYTES", 1)
    assert "disagree most" not in rendered(tmp_path, results)[0]


def test_further_metrics_have_a_column(tmp_path: Path):
    results = write_results(tmp_path, ("MRPC",), predictions=False)
    text, _ = rendered(tmp_path, results)
    accuracies = [run.scores["accuracy"] for run in results.tasks[0].models[1].runs]
    assert '<th scope="col">accuracy</th>' in text
    assert f"<td>{sum(accuracies) / 3 * 100:.1f}</td>" in text


def test_what_was_not_measured_is_said(tmp_path: Path):
    plain = write_results(tmp_path, ("RTE",), seeds=1, predictions=False).model_dump()
    for model in plain["tasks"][0]["models"]:
        model.update(latency_ms=None, bytes=None)
        model["runs"][0]["curve"] = []
    plain |= {"latency": "Latency was not measured.", "latency_command": "measure <it>"}
    text, outline = rendered(tmp_path, Results.model_validate(plain))
    assert "No chart of quality against latency, ms per example: fewer than two models have the figure." in text
    assert "Latency was not measured. This command measures it: <code>measure &lt;it&gt;</code>" in text
    assert "not meaningful" in text
    assert "one seed" in text
    assert len([a for a in outline.of("svg") if a.get("aria-hidden") != "true"]) == 2


def test_the_template_and_the_style_are_installed_with_the_package():
    project = tomllib.loads((page_module.FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["package-data"]["launcher"]
    others = {f"report/{path.name}" for path in page_module.FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert others <= set(listed)


def test_long_texts_and_control_characters_are_cut():
    assert clipped("a\u0000b\u202ec\nd") == "a b c d"
    assert clipped("x" * 1000) == "x" * 400 + "…"
