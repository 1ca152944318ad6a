"""Benchmarks on tiny sizes: that they measure what they say, and say what they measured."""

import json

import outside
import pytest

from mmjax import __main__ as main
from mmjax import bench
from mmjax.bench import checkpoints, clip, losses, pipeline, timing, torch_clip
from mmjax.errors import ConfigError, MmjaxError


@pytest.fixture
def torch():
    try:
        return torch_clip.import_torch()
    except MmjaxError as error:
        outside.missing(str(error))


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = timing.take_turns(calls, 2)
    assert order == ["a", "a", "b", "b"] * 2 and [len(times) for times in seconds.values()] == [2, 2]


def test_ratios_are_of_one_round():
    rows = timing.summary({"ours": [1.0, 3.0, 2.0], "theirs": [2.0, 4.0, 2.0]}, "ours")
    assert rows["ours"] == {"seconds": 2.0, "ratio": 1.0, "ratio_range": [1.0, 1.0]}
    assert rows["theirs"] == {"seconds": 2.0, "ratio": 0.75, "ratio_range": [0.5, 1.0]}
    assert timing.ratio_text(rows["theirs"]) == "0.75 (0.50 to 1.00)"


def test_losses():
    found = losses.measure(timing.Settings(rounds=1, batch=512))
    whole, chunked = (found["losses"]["infonce"]["512"][chunk] for chunk in ("0", "64"))
    assert whole["temporary_bytes"] > chunked["temporary_bytes"] > 0 < whole["seconds"]
    assert "| `sigmoid`, batch 512, `chunk_size` 256 |" in losses.table(found)


@pytest.mark.slow
def test_checkpoints(monkeypatch):
    monkeypatch.setattr(checkpoints, "_STEPS", 2)
    found = checkpoints.measure(timing.Settings(rounds=1, batch=2))
    assert found["batch"] == 2 and found["state_bytes"] > 2**20
    assert min(found[name] for name in ("step_seconds", "stall_seconds", "restore_seconds")) > 0
    assert "| the call that saves, until training goes on |" in checkpoints.table(found)


def test_files_to_batches(torch, monkeypatch):
    monkeypatch.setattr(pipeline, "FILES", 20)
    monkeypatch.setattr(pipeline, "WORKERS", (0,))
    monkeypatch.setattr(pipeline, "_BATCHES", 1)
    found = pipeline.measure(timing.Settings(rounds=1, batch=4))
    assert found["workers"]["0"][pipeline.THEIRS]["seconds"] > 0
    assert "| 0 | " in pipeline.table(found)


TINY = {"variant": "custom", "width": "32", "depth": "1", "heads": "2"}


@pytest.mark.slow
def test_the_same_model_in_pytorch(torch, monkeypatch):
    pytest.importorskip("transformers")
    sizes = {f"model.streams.{name}.encoder.{k}": v for name in ("image", "text") for k, v in TINY.items()}
    monkeypatch.setattr(clip, "SIZES", sizes)
    monkeypatch.setattr(torch_clip, "has_open_clip", lambda: False)  # it has sizes of its own only
    found = clip.measure(timing.Settings(rounds=1, batch=2))
    assert 0 < found["largest_difference"] < 1e-5
    step = found["float32"]["train step"]
    assert step["roofline_seconds"] > found["float32"]["encode image"]["roofline_seconds"] > 0
    assert set(step["implementations"]) == {"mmjax", "transformers"}
    assert "| train step, bfloat16 |" in clip.table(found)

    monkeypatch.setattr(clip, "_TOLERANCE", 0.0)
    with pytest.raises(MmjaxError, match="transformers: its image embeddings differ by .*, expected"):
        clip.measure(timing.Settings(rounds=1, batch=2))


def test_the_verb_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(losses, "BATCHES", (64,))
    verb = ["bench", "--only=losses", "--rounds=1", f"--out={tmp_path / 'out'}"]
    assert main.dispatch(verb) == 0
    results = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert results["machine"]["cpu_cores"] >= 1 and set(results["losses"]["losses"]) == {"infonce", "sigmoid"}
    text = (tmp_path / "out" / "bench.md").read_text()
    table = text.partition("\n\n")[2].strip()
    assert table.startswith("Value and gradient of contrastive losses") and table in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"--out=.*: holds a bench.json already"):
        main.dispatch(verb)


def test_what_was_measured_before_an_error_is_kept(tmp_path, monkeypatch):
    def fails(settings):
        raise MmjaxError("stopped")

    monkeypatch.setattr(losses, "BATCHES", (64,))
    monkeypatch.setattr(checkpoints, "measure", fails)
    with pytest.raises(MmjaxError, match="stopped"):
        main.dispatch(["bench", "--only=losses,checkpoints", "--rounds=1", f"--out={tmp_path}"])
    results = json.loads((tmp_path / "bench.json").read_text())
    assert "losses" in results and "checkpoints" not in results


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--only=clp", r"--only: 'clp' is not a benchmark \(did you mean 'clip'\?\)"),
        ("--rounds=0", "--rounds=0: expected 1 or more"),
        ("--batch=-1", "--batch=-1: expected 0 or more"),
        ("--config.seed=1", "bench has its own configs"),
    ],
)
def test_wrong_usage_is_refused(flag, message):
    with pytest.raises(ConfigError, match=message):
        main.dispatch(["bench", flag])


def test_without_pytorch_the_verb_says_how_to_get_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(torch_clip.importlib, "import_module", absent)
    with pytest.raises(MmjaxError, match="bench: PyTorch is not installed; .* pip install"):
        torch_clip.import_torch()


def test_every_benchmark_measures_and_shows():
    for name in bench.BENCHMARKS:
        module = bench.load(name)
        assert callable(module.measure) and callable(module.table)
