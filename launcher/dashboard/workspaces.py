"""The panels as a workspace and a report of `wandb-workspaces`. The only file that imports that package (stillhouse[dashboard])."""

import json
import os
from collections.abc import Callable
from typing import Any

from launcher.dashboard.panels import Panel, panels
from launcher.errors import LaunchError

NAME, TITLE = "Stillhouse", "Stillhouse: comparison of runs"
"""Names of the workspace and of the report, by which they are found again."""
WORKSPACES, REPORTS = "project-view", "runs"
"""W&B's kinds of views."""
VIEWS = """query StillhouseViews($entity: String, $project: String, $kind: String) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: $kind, first: 1000) { edges { node { id name displayName } } }
  }
}"""
WIDTH, HEIGHT, COLUMNS = 8, 6, 3  # W&B's grid has 24 units in a row
COLUMNS_OF_RUNS = (
    *("summary:heldout/loss", "summary:heldout/top1", "summary:train/tokens_per_second", "summary:train/memory_gb"),
    *("config:optimizer.learning_rate.value", "config:train.updates.value", "config:train.global_batch.value"),
)


class Library:
    """The two modules of the package."""

    def __init__(self) -> None:
        """Raises LaunchError without the package."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb_workspaces.reports.v2 as reports  # noqa: PLC0415
            import wandb_workspaces.workspaces as workspaces  # noqa: PLC0415
            from wandb_workspaces.workspaces import internal  # noqa: PLC0415
        except ImportError as error:
            raise LaunchError(
                f"dashboard: expected the package wandb-workspaces, got {error}; pip install 'stillhouse[dashboard]'"
            ) from error
        self.reports: Any = reports
        self.workspaces: Any = workspaces
        self._internal: Any = internal

    def line_plot(self, panel: Panel, place: int | None = None) -> Any:
        """A panel as a line plot. place: its number in the grid of a report; a workspace places panels itself."""
        layout = {}
        if place is not None:
            row, column = divmod(place, COLUMNS)
            layout["layout"] = self.reports.Layout(x=column * WIDTH, y=row * HEIGHT, w=WIDTH, h=HEIGHT)
        return self.reports.LinePlot(
            title=panel.title,
            x=panel.x,
            y=list(panel.keys),
            metric_regex=panel.pattern,
            title_x=panel.x.replace("_", " "),
            title_y=panel.unit or None,
            plot_type="stacked-area" if panel.stacked else None,
            **layout,
        )

    def workspace(self, project: str, entity: str) -> Any:
        """The workspace of a project: one section of panels for each topic."""
        sections = [
            self.workspaces.Section(name=name, panels=[self.line_plot(panel) for panel in found], is_open=True)
            for name, found in panels().items()
        ]
        return self.workspaces.Workspace(entity=entity, project=project, name=NAME, sections=sections)

    def report(self, project: str, entity: str) -> Any:
        """The report that compares the runs of a project. With an entity, W&B's server is asked for the project."""
        blocks: list[Any] = [self.reports.P("Select runs below a diagram. Each section shows the same runs.")]
        for name, found in panels().items():
            runs = self.reports.Runset(entity=entity, project=project, name="runs", pinned_columns=list(COLUMNS_OF_RUNS))
            plots = [self.line_plot(panel, place) for place, panel in enumerate(found)]
            blocks += [self.reports.H2(name), self.reports.PanelGrid(runsets=[runs], panels=plots)]
        runs = self.reports.Runset(entity=entity, project=project, name="runs")
        comparer = self.reports.RunComparer(diff_only=True, layout=self.reports.Layout(x=0, y=0, w=24, h=12))
        blocks += [self.reports.H2("settings that differ"), self.reports.PanelGrid(runsets=[runs], panels=[comparer])]
        return self.reports.Report(entity=entity, project=project, title=TITLE, blocks=blocks, width="fluid")

    def saved(self, project: str, entity: str, kind: str, name: str) -> tuple[str, str] | None:
        """(id, internal name) of the project's first view of this kind and name on the server; None if there is none."""
        given = {"entity": entity, "project": project, "kind": kind}
        answer = self._internal.execute_graphql(self._internal.wandb.Api(), VIEWS, given)
        edges = ((answer.get("project") or {}).get("allViews") or {}).get("edges") or []
        return next(((edge["node"]["id"], edge["node"]["name"]) for edge in edges if edge["node"]["displayName"] == name), None)


def specification(project: str, entity: str | None) -> dict[str, Any]:
    """Workspace and report as W&B stores them, made offline. Raises LaunchError without the package.

    The library draws ids at random. They are numbered here, so the same version gives the same specification.
    """
    library = Library()
    workspace = library.workspace(project, entity or "")._to_model().spec
    report = library.report(project, "")._to_model().spec  # a run set with an entity asks the server
    values = {
        "project": project,
        "entity": entity,
        "workspace": json.loads(workspace.model_dump_json(by_alias=True, exclude_none=True)),
        "report": json.loads(report.model_dump_json(by_alias=True, exclude_none=True)),
    }
    _number_ids(values)
    return values


def save(project: str, entity: str | None, say: Callable[[str], None]) -> None:
    """Create workspace and report on W&B's server, or replace those of the same names, and print their addresses.

    Raises LaunchError if the server does not take them.
    """
    library = Library()
    try:
        owner = entity or library.reports.Report(project=project).entity
        if not owner:
            raise LaunchError("--entity: expected a W&B user or team, got none; add --entity, or run `wandb login`")
        workspace = library.workspace(project, owner)
        if known := library.saved(project, owner, WORKSPACES, NAME):
            workspace._internal_id, workspace._internal_name = known
        say(f"workspace{' updated' if known else ''}: {workspace.save().url}")
        report = library.report(project, owner)
        if known := library.saved(project, owner, REPORTS, TITLE):
            report.id = known[0]
        say(f"report{' updated' if known else ''}: {report.save().url}")
    except LaunchError:
        raise
    except Exception as error:  # W&B raises too many kinds of errors to name
        text = " ".join(str(error).split()) or type(error).__name__
        raise LaunchError(
            f"dashboard: expected W&B's server to take it, got {text}; see `wandb login` and --entity, or write it with --spec FILE"
        ) from None


def _number_ids(value: Any, ids: list[str] | None = None) -> None:
    """Replace each random id by its number, in the order of the document."""
    ids = [] if ids is None else ids
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("__id__", "id") and isinstance(inner, str) and inner:
                ids.append(inner)
                value[key] = f"id-{len(ids)}"
            else:
                _number_ids(inner, ids)
    elif isinstance(value, list):
        for inner in value:
            _number_ids(inner, ids)
