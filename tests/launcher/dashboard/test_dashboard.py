"""The dashboard's specification, made offline by the real library: compared with a golden file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_server import KEY, WandbServer, python

from launcher.dashboard.panels import SECTIONS, panels
from launcher.reporting.catalogue import TRAIN_METRICS

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "dashboard.json"


def dashboard(*arguments: str, code: str = "from launcher.cli import main; main()") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, "dashboard", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_specification_is_the_golden_one_and_holds_every_panel_in_both_places(tmp_path: Path):
    """Written anew by `stillhouse dashboard --project lab --spec tests/golden/dashboard.json`."""
    pytest.importorskip("wandb_workspaces", reason="stillhouse[dashboard] is not installed")
    file = tmp_path / "dashboard.json"
    done = dashboard("--project", "lab", "--spec", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    assert file.read_text() == GOLDEN.read_text()


def test_the_golden_specification_has_each_panel_of_each_section_once():
    golden = json.loads(GOLDEN.read_text())
    wanted = {name: [(panel.title, panel.x, list(panel.keys), panel.pattern) for panel in found] for name, found in panels().items()}
    sections = golden["workspace"]["section"]["panelBankConfig"]["sections"]
    assert {section["name"]: [shown(panel) for panel in section["panels"]] for section in sections} == wanted
    grids = [block["metadata"] for block in golden["report"]["blocks"] if block["type"] == "panel-grid"]
    assert [[shown(panel) for panel in grid["panelBankSectionConfig"]["panels"]] for grid in grids[:-1]] == list(wanted.values())
    assert all("project" not in runs for grid in grids for runs in grid["runSets"])


def shown(panel: dict) -> tuple:
    config = panel["config"]
    return config["chartTitle"], config["xAxis"], config["metrics"], config.get("metricRegex")


def test_every_metric_with_a_panel_is_on_it_and_every_section_has_some():
    keys = [key for found in panels().values() for panel in found for key in panel.keys]
    assert len(keys) == len(set(keys))
    assert {f"train/{metric.key}" for metric in TRAIN_METRICS if metric.panel} <= set(keys)
    assert all(panels()[section] for section in SECTIONS)


def test_without_the_package_one_line_names_the_command_that_installs_it():
    code = "import sys; sys.modules['wandb_workspaces'] = None; from launcher.cli import main; main()"
    done = dashboard("--dry-run", code=code)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected the package wandb-workspaces, got" in done.stderr
    assert done.stderr.endswith("pip install 'stillhouse[dashboard]'\n")


@pytest.mark.slow
def test_a_second_call_updates_the_workspace_and_the_report_of_the_first(tmp_path: Path):
    """The server is a stand-in (tests/helpers/wandb_server.py); the client is the real one."""
    pytest.importorskip("wandb_workspaces", reason="stillhouse[dashboard] is not installed")
    code = "import sys; sys.argv = ['stillhouse', *'dashboard --project lab --entity lab'.split()]\nfrom launcher.cli import main; main()"
    with WandbServer() as server:
        told = []
        for _ in range(2):
            child = python(code, tmp_path, WANDB_BASE_URL=server.address, WANDB_API_KEY=KEY)
            out, err = child.communicate(timeout=100)
            assert child.returncode == 0, err
            told.append([line.partition(": ")[0] for line in out.splitlines()])
        assert told == [["workspace", "report"], ["workspace updated", "report updated"]]
        views = sorted((view["type"], view["displayName"], view["project"]["name"]) for view in server.views.values())
    assert views == [("project-view", "Stillhouse", "lab"), ("runs", "Stillhouse: comparison of runs", "lab")]
