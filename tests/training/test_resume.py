"""Whether a run in a directory is the one that a config describes."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
import types

import pytest
import tiny

from mmjax import config as config_lib
from mmjax.__main__ import dispatch
from mmjax.errors import ConfigError, DataError
from mmjax.files import write_json
from mmjax.training import optimizer as optimizers
from mmjax.training import resume, sizes
from mmjax.training import workdir as workdir_lib

COLOURS = {"colour": list(tiny.COLOURS)}
FINGERPRINTS = {"train": "aa", "test": "bb"}


class Tokenizer:
    vocab_size = 60

    def save(self, path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("tokens")


def made_data(fingerprints=FINGERPRINTS, class_names=COLOURS):
    """What `load_data` gives, as far as it is looked at."""
    facts = {"fingerprints": fingerprints, "examples": {"train": 3}, "class_names": class_names}
    return types.SimpleNamespace(
        tokenizers={"default": Tokenizer()}, class_names=class_names, facts=lambda: facts
    )


@pytest.fixture
def plain(tmp_path):
    return tiny.plain_config(tmp_path / "rows.jsonl", tmp_path / "data")


def filled(plain, data=None, **changes):
    data = data or made_data()
    return sizes.fill(tiny.resolved(plain, **changes), data.tokenizers, data.class_names)


@pytest.fixture
def workdir(plain, tmp_path):
    """With a run that has just begun."""
    data = made_data()
    workdir_lib.write_inputs(tmp_path / "run", filled(plain), data.facts(), {}, data.tokenizers)
    return tmp_path / "run"


def change_saved(workdir, change):
    """`change(saved)` alters the saved config in place."""
    saved = json.loads((workdir / "config.json").read_text())
    change(saved)
    (workdir / "config.json").write_text(json.dumps(saved))


def test_the_same_run_may_go_on(plain, workdir, tmp_path):
    resume.check(tmp_path / "new", filled(plain), made_data())
    resume.check(workdir, filled(plain), made_data())
    (workdir / "data.json").unlink()  # killed before that was written
    resume.check(workdir, filled(plain), made_data())


def test_where_and_how_a_run_computes_may_change(plain, workdir, caplog):
    elsewhere = filled(
        plain,
        mesh__fsdp=2,
        remat=True,
        log__every_steps=7,
        data__dir="/elsewhere",
        data__num_workers=3,
        checkpoint__every_steps=5,
    )
    with caplog.at_level("INFO"):
        resume.check(workdir, elsewhere, made_data())
    assert "goes on with another mesh.fsdp: 1 -> 2" in caplog.text
    with pytest.raises(ConfigError, match=r"another config \(batch_size: "):
        resume.check(workdir, filled(plain, mesh__fsdp=2, batch_size=16), made_data())


def test_another_config_is_named_by_its_keys(plain, workdir):
    with pytest.raises(
        ConfigError, match=r"another config \(optimizer.schedule.peak: 0.003 -> 0.2; seed: 3 -> 1\)"
    ):
        resume.check(workdir, filled(plain, seed=1, optimizer__schedule__peak=0.2), made_data())
    changes = {"seed": 1, "batch_size": 16, "scan": True, "dtype": "bfloat16", "total_steps": 1}
    with pytest.raises(ConfigError, match=r"batch_size: 8 -> 16; .*; and 1 more\)"):
        resume.check(workdir, filled(plain, **changes), made_data())


def test_changed_data_is_told_from_another_choice_of_data(plain, workdir):
    changed = made_data(fingerprints={"train": "cc"})
    with pytest.raises(DataError, match="data has changed since the run began .fingerprints"):
        resume.check(workdir, filled(plain, changed), changed)
    # A class more changes sizes in the config too: still, it is the data that changed.
    changed = made_data({"train": "cc"}, {"colour": [*COLOURS["colour"], "violet"]})
    with pytest.raises(DataError, match="data has changed"):
        resume.check(workdir, filled(plain, changed), changed)
    with pytest.raises(ConfigError, match="data.train.split: 'train' -> 'test'"):
        resume.check(workdir, filled(plain, changed, data__train__split="test"), changed)


def without_later_keys(saved):
    """As if these fields, of a section, a component, one in a list, and a size, had been added later."""
    del (
        saved["remat"],
        saved["optimizer"]["method"]["eps"],
        saved["data"]["streams"]["text"]["train"][1]["value"],
    )
    del saved["model"]["streams"]["text"]["encoder"]["vocab_size"]


def test_a_key_that_came_later_and_has_its_default_is_no_difference(plain, workdir):
    change_saved(workdir, without_later_keys)
    resume.check(workdir, filled(plain), made_data())
    with pytest.raises(ConfigError, match=r"another config \(optimizer.method.eps: 1e-08 -> 1e-06\)"):
        resume.check(workdir, filled(plain, optimizer__method__eps=1e-6), made_data())


def test_a_key_that_is_gone_is_a_difference(plain, workdir):
    change_saved(workdir, lambda saved: saved["optimizer"]["method"].update(nesterov=True))
    with pytest.raises(
        ConfigError, match=r"another config \(optimizer.method.nesterov: unknown key; .*choose"
    ):
        resume.check(workdir, filled(plain), made_data())


def test_a_default_that_changed_is_a_difference(plain, workdir, monkeypatch):
    changed = dataclasses.make_dataclass(
        "AdamW", [("b2", float, 0.95)], bases=(optimizers.AdamW,), frozen=True
    )
    monkeypatch.setitem(optimizers.OPTIMIZERS, "adamw", changed)
    with pytest.raises(ConfigError, match=r"another config \(optimizer.method.b2: 0.999 -> 0.95\)"):
        resume.check(workdir, filled(plain), made_data())


def test_a_field_without_a_default_is_a_difference(plain, workdir):
    change_saved(workdir, lambda saved: saved["optimizer"]["schedule"].pop("peak"))
    with pytest.raises(ConfigError, match="another config .optimizer.schedule.peak: is missing"):
        resume.check(workdir, filled(plain), made_data())


def test_a_tokenizer_that_is_gone_is_a_difference(plain, workdir):
    def change(saved):
        saved["data"]["tokenizers"]["other"] = copy.deepcopy(saved["data"]["tokenizers"]["default"])
        saved["data"]["streams"]["text"]["eval"][0]["tokenizer"] = "other"

    change_saved(workdir, change)
    with pytest.raises(ConfigError, match="data.streams.text.eval.0.tokenizer: 'other' -> 'default'"):
        resume.check(workdir, filled(plain), made_data())


@pytest.fixture
def finished_run(plain, tmp_path):
    """The config and the directory of a finished run on images alone, whose data is not there any more."""
    for section in (plain["data"]["streams"], plain["model"]["streams"], plain["objectives"], plain["evals"]):
        for name in ("text", "contrastive", "retrieval"):
            section.pop(name, None)
    heads = {"colour_logits": {"type": "classifier", "label": "colour", "reads": "image"}}
    plain["model"] |= {"fusion": None, "heads": heads}
    plain["data"]["tokenizers"] = {}
    workdir = tmp_path / "run"
    workdir_lib.write_inputs(workdir, filled(plain), made_data().facts(), {}, {})
    result = {"metrics": {"classification/colour_logits/accuracy": 0.75}, "steps": 9, "wall_seconds": 61.0}
    write_json(workdir / "result.json", result)
    (workdir / "report.html").write_text("the report")
    return tiny.resolved(plain), workdir


def test_a_finished_run_is_told_without_its_data(finished_run, tmp_path):
    config, workdir = finished_run
    assert resume.finished(workdir, config)["steps"] == 9
    assert resume.finished(tmp_path / "new", config) is None
    change_saved(workdir, lambda saved: saved.pop("remat"))
    assert resume.finished(workdir, config)["steps"] == 9
    config.seed = 4
    with pytest.raises(ConfigError, match=r"holds a run of another config \(seed: 3 -> 4\)"):
        resume.finished(workdir, config)
    (workdir / "result.json").unlink()
    assert resume.finished(workdir, config) is None


def test_a_finished_run_with_other_labels_is_left_to_the_data_to_tell(finished_run):
    config, workdir = finished_run
    config.data.labels.shape = "shape"
    config.model.heads.colour_logits.label = "shape"
    assert resume.finished(workdir, config) is None


def test_to_start_a_finished_run_again_loads_little(finished_run):
    config, workdir = finished_run
    (workdir.parent / "config.json").write_text(config_lib.to_json(config))
    program = f"""
import sys
from mmjax.__main__ import dispatch
assert dispatch(["train", "--config={workdir.parent / "config.json"}", "--workdir={workdir}"]) == 0
heavy = {{"orbax", "grain", "tensorflow_datasets", "sklearn", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.split() == ["classification/colour_logits/accuracy", "0.7500"]
    assert last == f"9 steps in 61 s; report: {workdir / 'report.html'}"
    assert (workdir / "report.html").read_text() == "the report"


@pytest.mark.parametrize("age", ["none", "older"])
def test_a_report_from_before_the_end_is_made_again(finished_run, monkeypatch, capsys, age):
    config, workdir = finished_run
    report = workdir / "report.html"
    report.unlink() if age == "none" else os.utime(report, (1e9, 1e9))
    monkeypatch.setattr(
        "mmjax.verbs.report.make_report", lambda place: (place / report.name).write_text("new")
    )
    (workdir.parent / "config.json").write_text(config_lib.to_json(config))
    for _ in range(2):
        assert dispatch(["train", f"--config={workdir.parent / 'config.json'}", f"--workdir={workdir}"]) == 0
        assert report.read_text() == "new" and str(report) in capsys.readouterr().out
        monkeypatch.setattr("mmjax.verbs.report.make_report", None)


def test_sizes_are_those_of_the_data(plain):
    model = config_lib.to_dict(filled(plain))["model"]
    assert model["streams"]["text"]["encoder"]["vocab_size"] == 60
    assert model["heads"]["colour_logits"]["num_classes"] == 4
