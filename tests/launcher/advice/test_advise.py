"""`stillhouse advise` on a proof, exports and times that the shipped commands made."""

import json
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from school import make_school
from task_files import make_task

from kd.models.loading import weights_digest
from kd.tasks.loading import load_task
from launcher.advice.advise import run
from launcher.advice.exports import tensors_digest
from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.timing.latency import run as latency
from launcher.errors import LaunchError
from launcher.process.signals import CAUGHT
from launcher.retention import retention

pytestmark = [pytest.mark.slow, pytest.mark.tasks]


@pytest.fixture(scope="module")
def measured(tmp_path_factory, fork_server) -> Path:
    """proof: a teacher and a distilled student of one seed. shipped: an INT8 export of each, with its metric."""
    folder = tmp_path_factory.mktemp("advise")
    school = make_school(folder)
    base = folder / "task.yaml"
    base.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 16, micro_batch: 16, epochs: 1}\n")
    values = {
        "settings": ["train.precision=fp32"],
        "tasks": {"moods": {"config": str(base), "settings": list(make_task(folder / "data", "classification").settings)}},
        "teacher": {"model": str(school.teacher), "learning_rates": [3e-3], "epochs": 1},
        "students": {"half": {"learning_rates": [3e-3], "epochs": 1, "settings": ["student.layers=[0, 2]", "student.architecture=same"]}},
        "seeds": [1],
    }
    (folder / "proof.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    before = {number: signal.getsignal(number) for number in CAUGHT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        fork_server.fork_jobs(patch)
        words = ["retention", "--config", str(folder / "proof.yaml"), "--folder", str(folder / "proof")]
        assert retention.run(parser().parse_args(words)) == 0
    for number, handler in before.items():
        signal.signal(number, handler)
    for model in ("teacher", "half"):
        (run_folder,) = (folder / "proof" / "moods" / model).glob("rate-*/seed-1")
        words = [
            "--precision",
            "int8",
            "--out",
            str(folder / "shipped" / model),
            "--task-config",
            str(run_folder / "config.yaml"),
            "--force",
        ]
        assert export(parser().parse_args(["export", str(run_folder / "student"), *words])) == 0
    return folder


def advise(capsys, *words) -> str:
    capsys.readouterr()
    assert run(parser().parse_args(["advise", "--task", "moods", *map(str, words)])) == 0
    return capsys.readouterr().out


def content_of(capsys, out: Path, *words) -> dict:
    advise(capsys, *words, "--json", out)
    return json.loads(out.read_text())


@pytest.fixture
def timed(measured, tmp_path, capsys) -> Path:
    """The times that the printed command measures, as if the core had been free meanwhile."""
    said = advise(capsys, measured / "proof", measured / "shipped", "--length", 16)
    (command,) = [line for line in said.splitlines() if line.startswith("not measured: stillhouse latency ")]
    words = shlex.split(command.removeprefix("not measured: stillhouse "))
    out = tmp_path / "times.json"
    words[words.index("--json") + 1] = str(out)
    words[words.index("--length") + 1] = "16"
    assert latency(parser().parse_args([*words, "--repetitions", "5"])) == 0
    times = json.loads(out.read_text())
    for row in times["rows"]:
        row |= {"trusted": True, "wall_per_cpu": 1.0}
    out.write_text(json.dumps(times))
    return out


def test_what_was_not_measured_is_said_with_the_command_that_measures_it(measured, tmp_path, capsys):
    made = content_of(capsys, tmp_path / "made.json", measured / "proof", measured / "shipped", "--latency-ms", 10)
    assert sorted((one["name"], one["form"]) for one in made["models"]) == [
        *(("half", form) for form in ("onnx int8", "torch fp32")),
        *(("teacher", form) for form in ("onnx int8", "torch fp32")),
    ]
    assert all(one["p95_ms"] is None and not one["meets"] for one in made["models"])
    assert (made["cheapest"], made["nearest"], made["shape"]) == (None, None, None)
    said = advise(capsys, measured / "proof", measured / "shipped", "--latency-ms", 10)
    assert "no model has every figure that the limits need: run the commands below" in said
    alone = content_of(capsys, tmp_path / "made.json", measured / "proof")
    (command,) = [one for one in alone["not_measured"] if "export" in one and "teacher" in one]
    parsed = parser().parse_args(shlex.split(command)[1:])
    assert (parsed.verb, parsed.precision) == ("export", "int8")
    assert Path(parsed.task_config).is_file()
    assert Path(parsed.model, "model.safetensors").is_file()


def test_a_run_that_a_run_of_the_task_taught_is_of_the_task_whatever_its_name(measured, tmp_path, capsys):
    (teacher,), (half,) = ((measured / "proof" / "moods" / name).glob("rate-*/seed-1") for name in ("teacher", "half"))
    for number, name in enumerate((teacher, half)):
        report = json.loads((name / "report.json").read_text())
        for task, others in ((report["name"], 2), (f"no {report['name']}", None)):
            words = ["advise", "--task", task, str(teacher), str(half), "--json", str(tmp_path / f"{number}.json")]
            if others is None:
                with pytest.raises(
                    LaunchError, match="expected a task with a report, got none; reports have: proof: moods, half, seed 1, "
                ):
                    run(parser().parse_args(words))
                continue
            assert run(parser().parse_args(words)) == 0
            models = json.loads((tmp_path / f"{number}.json").read_text())["models"]
            assert [one["teacher"] for one in models if one["form"] == "torch fp32"].count(True) == 1
            assert len(models) == others


def test_figures_are_those_of_the_files_that_have_them(measured, timed, tmp_path, capsys):
    made = content_of(capsys, tmp_path / "made.json", measured / "proof", measured / "shipped", timed)
    by_name = {(one["name"], one["form"]): one for one in made["models"]}
    (report,) = (measured / "proof" / "moods" / "half").glob("rate-*/seed-1/report.json")
    run_report = json.loads(report.read_text())
    student = by_name["half", "torch fp32"]
    teacher_value = by_name["teacher", "torch fp32"]["value"]
    assert student["value"] == run_report["dev"]["accuracy"]
    assert student["seconds"] == run_report["elapsed_seconds"]
    assert student["retained"] == pytest.approx(student["value"] / teacher_value)
    record = json.loads((measured / "shipped" / "half" / "stillhouse.json").read_text())
    exported = by_name["half", "onnx int8"]
    assert (exported["value"], exported["bytes"]) == (record["quality"]["exported"], record["bytes"])
    assert exported["retained"] == pytest.approx(record["quality"]["exported"] / teacher_value)
    rows = {(Path(row["model"]).name, row["form"]): row for row in json.loads(timed.read_text())["rows"]}
    assert exported["p95_ms"] == rows["half", "onnx int8"]["p95_ms"]
    assert by_name["teacher", "onnx int8"]["cpu_ms"] == rows["teacher", "onnx int8"]["cpu_p50_ms"]
    assert made["shape"] == {"batch": 1, "length": 16, "threads": 1}
    assert not [one for one in made["not_measured"] if "latency" in one]


def test_an_export_of_any_seed_is_found_and_its_retention_has_an_interval(measured, tmp_path, capsys):
    """A second seed: the run of the first under another name, with other weights, and an export of it."""
    proof = shutil.copytree(measured / "proof", tmp_path / "proof")
    (first,) = (proof / "moods" / "half").glob("rate-*/seed-1")
    second = shutil.copytree(first, first.with_name("seed-2"))
    weights = load_file(second / "student" / "model.safetensors")
    weights["classifier.bias"] += 0.01
    save_file(weights, second / "student" / "model.safetensors", {"format": "pt"})
    words = ["--precision", "int8", "--out", str(tmp_path / "shipped"), "--task-config", str(second / "config.yaml"), "--force"]
    assert export(parser().parse_args(["export", str(second / "student"), *words])) == 0
    made = content_of(capsys, tmp_path / "made.json", proof, tmp_path / "shipped", measured / "shipped")
    exports = {one["seed"]: one for one in made["models"] if (one["name"], one["form"]) == ("half", "onnx int8")}
    assert sorted(exports) == ["seed 1", "seed 2"]
    assert not [one for one in made["left_out"] if "export" in one]
    quality = json.loads((tmp_path / "shipped" / "stillhouse.json").read_text())["quality"]
    (student,) = [one for one in made["models"] if (one["name"], one["form"]) == ("half", "torch fp32")]
    low, high = exports["seed 2"]["retained_interval"]
    assert exports["seed 2"]["retained"] == pytest.approx(student["retained"] * quality["exported"] / quality["original"])
    ends = student["retained_interval"] or [student["retained"]] * 2
    assert low == pytest.approx(ends[0] * (1 - quality["high"] / 100 / quality["original"]))
    assert high == pytest.approx(ends[1] * (1 - quality["low"] / 100 / quality["original"]))
    assert "half, seed 2" in advise(capsys, proof, tmp_path / "shipped")


def test_a_model_is_that_of_the_rate_that_the_proof_chose_and_its_seeds_are_one_model(measured, tmp_path, capsys):
    """The learning rate that lost sorts first. Its run and the second seed are no models of their own."""
    proof = shutil.copytree(measured / "proof", tmp_path / "proof")
    (first,) = (proof / "moods" / "teacher").glob("rate-*/seed-1")
    shutil.copytree(first, first.with_name("seed-2"))
    lost = shutil.copytree(first, first.parent.with_name("rate-0.0001") / "seed-1")
    assert lost < first
    made = content_of(capsys, tmp_path / "made.json", proof)
    teachers = [one for one in made["models"] if one["teacher"]]
    assert [one["folder"] for one in teachers] == [str(first / "student")]
    assert [Path(one).parent.name for one in teachers[0]["folders"]] == ["seed-1", "seed-2"]
    assert len(made["models"]) == 2


def test_many_models_are_a_short_answer(measured, tmp_path, capsys):
    proof = shutil.copytree(measured / "proof", tmp_path / "proof")
    report = json.loads((proof / "report.json").read_text())
    (half,) = [one for one in report["tasks"][0]["models"] if one["model"] == "half"]
    for number in range(30):
        report["tasks"][0]["models"].append(half | {"model": f"half {number}", "retained": number / 100})
        shutil.copytree(proof / "moods" / "half", proof / "moods" / f"half-{number}")
    (proof / "report.json").write_text(json.dumps(report))
    said = advise(capsys, proof)
    assert "and 12 more, slower or not measured: --all shows them" in said
    assert "not measured: times of 24 more models, which promise less: add their folders to that command" in said
    (command,) = [line for line in said.splitlines() if line.startswith("not measured: stillhouse latency ")]
    assert "/moods/teacher/" in command.split()[4], "the teacher comes first"
    assert said.count("not measured: stillhouse export ") == 3
    assert "not measured: INT8 exports of 29 more models, which promise less" in said
    assert "--all shows them" not in (every := advise(capsys, proof, "--all"))
    assert all(f"half {number}, torch fp32" in every for number in range(30))


def test_a_run_records_the_device_that_its_time_was_measured_on(measured):
    for report in (measured / "proof" / "moods").glob("*/rate-*/seed-1/report.json"):
        assert json.loads(report.read_text())["device"] == "cpu"


def test_a_moved_folder_keeps_its_figures_and_a_changed_model_loses_them(measured, timed, tmp_path, capsys):
    moved = shutil.copytree(measured / "shipped", tmp_path / "moved")
    made = content_of(capsys, tmp_path / "made.json", measured / "proof", moved, timed)
    assert {one["form"]: one["p95_ms"] is not None for one in made["models"]} == {"onnx int8": True, "torch fp32": True}
    record = moved / "half" / "stillhouse.json"
    values = json.loads(record.read_text())
    values["files"]["model.onnx"] = "0" * 64
    record.write_text(json.dumps(values))
    made = content_of(capsys, tmp_path / "made.json", measured / "proof", moved, timed)
    assert {one["name"] for one in made["models"] if one["p95_ms"] is None} == {"half"}
    values["made_from"]["weights_sha256"] = "0" * 64
    record.write_text(json.dumps(values))
    assert "left out: 1 export of other models than those of moods" in advise(capsys, measured / "proof", moved, timed)


def test_limits_choose_and_distillation_is_refused_where_the_teacher_is_enough(measured, timed, tmp_path, capsys):
    words = [measured / "proof", measured / "shipped", timed, "--min-retained", 0.01]
    said = advise(capsys, *words, "--latency-ms", 10000, "--size-mb", 100)
    assert "cheapest that meets all limits: " in said
    assert "distillation does not pay: the teacher in 8 bits, or unchanged, meets the target: " in said
    assert "calls repay it; give --calls-per-day" in said or "saves no CPU time" in said
    said = advise(capsys, *words, "--latency-ms", 1e-6)
    assert "no measured model meets all limits; the nearest is " in said
    assert "distillation does not pay: the quality gap matters more" in advise(capsys, *words[:3], "--min-retained", 9)


def test_a_time_that_others_disturbed_meets_no_limit(measured, timed, tmp_path, capsys):
    times = json.loads(timed.read_text())
    for row in times["rows"]:
        row["trusted"] = False
    timed.write_text(json.dumps(times))
    made = content_of(capsys, tmp_path / "made.json", measured / "proof", measured / "shipped", timed, "--latency-ms", 10000)
    assert (made["cheapest"], any(one["meets"] for one in made["models"])) == (None, False)
    assert [one for one in made["not_measured"] if "stillhouse latency" in one]


def test_the_digest_of_a_file_is_that_of_the_loaded_model(measured):
    (student,) = (measured / "proof" / "moods" / "half").glob("rate-*/seed-1/student")
    model = load_task(str(student), "classification", lambda _where, names: list(range(len(names))))
    assert tensors_digest(student / "model.safetensors") == weights_digest(model)


def test_mistakes_are_one_line(measured, tmp_path, capsys, monkeypatch):
    with pytest.raises(LaunchError, match=r"^--task sst2: expected a task with a report, got none; reports have: moods$"):
        run(parser().parse_args(["advise", "--task", "sst2", str(measured / "proof")]))
    with pytest.raises(LaunchError, match=r"none: expected a folder with reports, got nothing there; correct the path$"):
        advise(capsys, tmp_path / "none")
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(LaunchError, match=r"other\.json: expected a report, .*, got other JSON; leave it out$"):
        advise(capsys, tmp_path / "other.json")
    (tmp_path / "report.json").write_text("{")
    assert f"left out: {tmp_path / 'report.json'}: Expecting property name" in advise(capsys, measured / "proof", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LaunchError, match=r"^FOLDER: expected folders with reports, got none, and no runs or shipped here; name one$"):
        advise(capsys)
