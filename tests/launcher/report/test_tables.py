"""The terminal's tables and the Markdown hold the same figures as the page, and names mean nothing to Markdown or rich."""

import io
from pathlib import Path

from report_results import write_results
from rich.console import Console

from launcher.report.results import Results
from launcher.report.retention import read_all, summarise
from launcher.report.tables import markdown, terminal


def shown(results: Results, folder: Path, width: int = 120) -> tuple[str, str]:
    summaries = summarise(results, read_all(results, folder))
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(terminal(results, summaries))
    return text.getvalue(), markdown(results, summaries)


def test_both_show_score_retention_and_what_is_not_meaningful(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2", "RTE"), predictions=False)
    values = [run.value for run in results.tasks[0].models[0].runs]
    for text in shown(results, tmp_path):
        assert f"{sum(values) / 3 * 100:.1f}" in text
        assert "not meaningful" in text
        assert "Mean over 1 task, without the small and noisy RTE" in text
        assert "Fine-tuning alone is as good" in text
    assert "MobileBERT" not in shown(results, tmp_path)[0]
    assert "## Published figures, not measured here" in shown(results, tmp_path)[1]


def test_names_are_not_markup(tmp_path: Path):
    plain = write_results(tmp_path, ("SST-2",), predictions=False).model_dump()
    plain["tasks"][0]["title"] = "a|b [red]<b>`c`"
    terminal_text, markdown_text = shown(Results.model_validate(plain), tmp_path, width=200)
    assert "a|b [red]<b>`c`" in terminal_text
    assert "a\\|b \\[red\\]&lt;b>\\`c\\`" in markdown_text
    rows = [line for line in markdown_text.splitlines() if line.startswith("| a")]
    assert all(line.replace("\\|", "").count("|") in (5, 9) for line in rows)


def test_both_show_what_parts_are_worth_and_the_scores_by_tokens(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2", "CoLA"), predictions=False, pretrained=True)
    for text in shown(results, tmp_path, width=300):
        assert "What each part is worth" in text
        assert "distillation in pretraining (368,583 tokens)" in text
        assert "4 M, distilled - layers, distilled" in text
        assert "(noise)" in text
        assert "Score against pretraining tokens" in text
        assert "4,000,000" in text
    plain = write_results(tmp_path, ("RTE",), predictions=False)
    assert "pretraining tokens" not in "".join(shown(plain, tmp_path))
