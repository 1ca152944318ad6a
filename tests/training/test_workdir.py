"""A run's directory: what may become one, and what is written to it."""

import copy
import json
import subprocess
import sys
import types

import pytest
import tiny

from mmjax import config as config_lib
from mmjax.errors import ConfigError, DataError
from mmjax.training import workdir as workdir_lib

CONFIG = {"seed": 0, "data": {"dir": "", "train": {"type": "manifest"}}, "optimizer": {"peak": 0.1}}
FACTS = {"fingerprints": {"train": "aa"}, "examples": {"train": 3}, "class_names": {"digit": ["0", "1"]}}
SPEC = {"image": ((8, 8, 3), "float32"), "example_id": ((), "int32")}
LOG = {"tensorboard": False, "wandb": False, "wandb_project": "mmjax"}


class Tokenizer:
    def save(self, path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("tokens")


def write(workdir, config=CONFIG, facts=FACTS):
    workdir_lib.write_inputs(workdir, config, facts, SPEC, {"default": Tokenizer()})


def test_json_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(DataError, match=f"x.json: is missing; is {tmp_path} the directory of a run?"):
        workdir_lib.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(DataError, match="x.json: is damaged"):
        workdir_lib.read_json(tmp_path / "x.json")


def test_inputs(tmp_path):
    write(tmp_path / "runs" / "first")
    found = {
        path.relative_to(tmp_path / "runs" / "first").as_posix(): path.read_text()
        for path in (tmp_path / "runs" / "first").rglob("*")
        if path.is_file()
    }
    assert set(found) == {"config.json", "data.json", "spec.json", "tokenizers/default.json"}
    assert json.loads(found["config.json"]) == CONFIG
    assert json.loads(found["data.json"]) == FACTS
    assert json.loads(found["spec.json"]) == {"image": [[8, 8, 3], "float32"], "example_id": [[], "int32"]}


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--workdir=.*file/run: cannot be written"):
        write(tmp_path / "file" / "run")


def test_places(tmp_path):
    workdir_lib.check_place(tmp_path / "new")
    workdir_lib.check_place(tmp_path)
    (tmp_path / ".config.json.17.partial").write_text('{"se')  # of a process that was killed at once
    workdir_lib.check_place(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match="is not empty and not a run"):
        workdir_lib.check_place(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        workdir_lib.check_place(tmp_path / "notes.txt")
    write(tmp_path)
    workdir_lib.check_place(tmp_path)


def test_a_config_is_read_with_the_defaults_of_what_came_later(tmp_path):
    resolved = config_lib.to_dict(tiny.resolved(tiny.plain_config(tmp_path / "rows.jsonl", tmp_path)))
    older = copy.deepcopy(resolved)
    del (
        older["remat"],
        older["optimizer"]["method"]["eps"],
        older["data"]["streams"]["text"]["train"][1]["value"],
    )
    write(tmp_path / "run", older)
    assert workdir_lib.read_config(tmp_path / "run") == resolved
    for changes, message in (
        ({"speed": 9}, "speed: unknown key"),
        ({"optimizer": {"method": {"type": "adamw"}}}, "optimizer.schedule: is missing"),
    ):
        write(tmp_path / "run", older | changes)
        with pytest.raises(ConfigError, match=rf"run/config.json: {message}.*made by another version"):
            workdir_lib.read_config(tmp_path / "run")


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_cut_back_to_where_the_run_goes_on(tmp_path):
    log = workdir_lib.MetricsLog(tmp_path, 0, LOG, CONFIG)
    for step in (2, 4, 6):
        log.write(step, {"loss": step / 10})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    log = workdir_lib.MetricsLog(tmp_path, 4, LOG, CONFIG)
    assert lines(tmp_path) == [{"step": 2, "loss": 0.2}, {"step": 4, "loss": 0.4}]
    log.write(6, {"loss": 0.7})
    log.close()
    assert lines(tmp_path)[2:] == [{"step": 6, "loss": 0.7}]
    workdir_lib.MetricsLog(tmp_path, 0, LOG, CONFIG).close()
    assert lines(tmp_path) == []


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path):
    log = workdir_lib.MetricsLog(tmp_path, 0, LOG, CONFIG)
    log.write(1, {"loss": 1.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]
    log.close()


def test_one_process_writes(tmp_path):
    log = workdir_lib.MetricsLog(tmp_path, 0, LOG | {"tensorboard": True}, CONFIG, writes=False)
    log.write(1, {"loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    """A stand-in for the package, which is not installed with the rest."""
    started, logged, finished = [], [], []
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace(name="wandb")
    fake.init = lambda **settings: (
        started.append(settings)
        or types.SimpleNamespace(
            log=lambda values, step: logged.append((step, values)), finish=lambda: finished.append(True)
        )
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log_section = LOG | {"wandb": True}
    workdir_lib.check_log(log_section)
    for step in (0, 4):
        log = workdir_lib.MetricsLog(tmp_path, step, log_section, CONFIG)
        log.write(step + 1, {"loss": 0.5, "note": "no number"})
        log.close()
    assert [s["id"] for s in started] == [started[0]["id"]] * 2 and started[0]["id"]
    assert started[0]["project"] == "mmjax" and started[0]["config"] == CONFIG
    assert logged == [(1, {"loss": 0.5}), (5, {"loss": 0.5})] and len(finished) == 2


def test_what_decides_numbers_is_written_down():
    versions = workdir_lib.versions()
    assert versions["jax"][0].isdigit() and versions["python"].startswith(f"{sys.version_info.major}.")
    revision = workdir_lib.git_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) >= 7


def test_a_written_table_is_no_change_of_the_code(tmp_path, monkeypatch):
    package, table = tmp_path / "mmjax" / "training", tmp_path / "experiments" / "colours"
    for folder in (package, table):
        folder.mkdir(parents=True)
    written = [package / "workdir.py", table / "experiment.py", table / "README.md", table / "results.json"]
    for file in written:
        file.write_text("first")

    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(workdir_lib, "__file__", str(written[0]))
    assert workdir_lib.git_revision() is None
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean = workdir_lib.git_revision()
    assert len(clean) == 12
    for file, dirty in zip(written[::-1], (False, False, True, True), strict=True):
        file.write_text("second")
        assert workdir_lib.git_revision() == clean + ("-dirty" if dirty else ""), file
