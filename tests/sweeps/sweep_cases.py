"""Studies of a tiny config, and a stand-in for training whose metric is a function of the config."""

from __future__ import annotations

import json
import pathlib

import tiny

from mmjax import config as config_lib
from mmjax.errors import NonFiniteError
from mmjax.files import write_json
from mmjax.sweeps import plan, study

METRIC = "classification/colour_logits/accuracy"
# A plain function of what is searched, with its best at (3e-3, 16).
SEARCHED = """
from mmjax.sweeps.space import choice, integers, log_uniform, uniform

def search_space():
    return {
        "optimizer.schedule.peak": log_uniform(1e-4, 1e-1),
        "optimizer.ema": uniform(0.0, 0.9),
        "batch_size": choice([8, 16]),
    }

def sweep_lr():
    for peak in (1e-3, 1e-2):
        yield {"optimizer.schedule.peak": peak}
"""


def write_config(folder: pathlib.Path, functions: str = SEARCHED) -> str:
    """A config file; its data lies nowhere."""
    plain = tiny.without_fusion(tiny.plain_config(folder / "nowhere.jsonl", folder / "data"))
    plain["log"]["every_steps"] = 1
    text = config_lib.to_json(plain)
    path = folder / "config.py"
    path.write_text(
        f"import json\nfrom ml_collections import ConfigDict\nTEXT = {text!r}\n"
        f"def get_config():\n    return ConfigDict(json.loads(TEXT))\n{functions}"
    )
    return str(path)


def settings(reference: str, **given) -> study.Settings:
    """Settings as the verb makes them."""
    fields = {
        "sweep": [],
        "search": None,
        "trials": None,
        "pruner": "none",
        "metric": METRIC,
        "direction": None,
        "seeds": [],
        "folds": None,
        "fold_group": "",
        "search_seed": 0,
        "storage": "sqlite",
        "retries": 2,
    }
    return plan.make_settings(reference, given.pop("overrides", {}), **{**fields, **given})


def begin(folder: pathlib.Path, reference: str, **given) -> study.Study:
    """A new study, or the one that is there."""
    made = settings(reference, **given)
    return study.begin(folder, made, made.storage)


def score(config) -> float:
    """What the stand-in measures at the end."""
    return 1.0 - abs(config.optimizer.schedule.peak - 3e-3) - config.seed / 100


class Train:
    """Stands in for `mmjax.training.loop.train`: four steps, an evaluation after each.

    Attributes:
      runs: directory and first step of every call.
      stop: called with (directory, step) before each step; what it raises ends the call.
      absurd: seeds whose loss is not finite.
    """

    def __init__(self):
        self.runs: list[tuple[str, int]] = []
        self.stop = lambda workdir, step: None
        self.absurd: set[int] = set()

    def __call__(self, config, workdir, observe=None):
        result = workdir / "result.json"
        if result.is_file():
            return json.loads(result.read_text())
        workdir.mkdir(parents=True, exist_ok=True)
        log = workdir / "metrics.jsonl"
        lines = log.read_text().splitlines() if log.is_file() else []
        self.runs.append((workdir.name, len(lines)))
        for step in range(len(lines) + 1, 5):
            self.stop(workdir, step)
            if config.seed in self.absurd:
                raise NonFiniteError("step 1: not finite: loss")
            metrics = {METRIC: score(config) * step / 4}
            with log.open("a") as file:
                file.write(json.dumps({"step": step, "train/examples_per_second": 10.0, **metrics}) + "\n")
            if observe is not None and step < 4:
                observe(step, metrics)
        write_json(workdir / "config.json", config_lib.to_dict(config))
        facts = {"steps": 4, "wall_seconds": 2.0, "examples_per_second": 10.0}
        write_json(result, {"metrics": metrics, **facts})
        return json.loads(result.read_text())
