"""What an experiment is: rows, columns, seeds, and what is expected of them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence

from mmjax import config as config_lib
from mmjax.components import suggestion
from mmjax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"


@dataclasses.dataclass(frozen=True)
class Expected:
    """A published number.

    Attributes:
      value, tolerance: in the unit in which the column is shown.
      source: paper and table.
    """

    value: float
    tolerance: float
    source: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One config, trained once per seed.

    Attributes:
      name: of the row's directory, and in claims.
      heading: in the table.
      config: `configs/x.py:argument`, from the root of the checkout.
      overrides: key -> text, as after `--config.` on the command line.
      expected: metric -> what a paper reports.
      needs: what it takes that a laptop does not have, such as 'a TPU v3-8 and ImageNet'; such a row is
        run only where it is asked for by name. Empty: nothing.
    """

    name: str
    heading: str
    config: str
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, Expected] = dataclasses.field(default_factory=dict)
    needs: str = ""

    def resolve(self, seed: int) -> config_lib.ConfigDict:
        """The config of the run with this seed."""
        return config_lib.resolve(str(ROOT / self.config), {**self.overrides, "seed": str(seed)})

    def config_digest(self) -> str:
        """SHA-256 of the config as declared: what it leaves at its default does not count."""
        declared = {"config": config_lib.load(str(ROOT / self.config)), "overrides": dict(self.overrides)}
        return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()

    def command(self) -> str:
        """What trains the row by hand, but for the seed."""
        return " ".join(["./launch.sh", *self._arguments(self.config)])

    def arguments(self, seed: int) -> list[str]:
        """Of `python -m mmjax`, in any directory."""
        return [*self._arguments(str(ROOT / self.config)), f"--config.seed={seed}"]

    def _arguments(self, config: str) -> list[str]:
        return [
            "train",
            f"--config={config}",
            *(f"--config.{k}={text}" for k, text in self.overrides.items()),
        ]


@dataclasses.dataclass(frozen=True)
class Column:
    """One metric.

    Attributes:
      metric: its name in a run's `result.json`, or in its log of training ('train/loss', of the last
        line). A row that does not have it gets a dash.
      heading: in the table.
      scale: what the metric is multiplied by; 100 shows a fraction in percent.
      decimals: digits shown after the point.
    """

    metric: str
    heading: str
    scale: float = 1.0
    decimals: int = 3


def percent(metric: str, heading: str) -> Column:
    """The column of a metric that is a fraction, in percent with one decimal; '(%)' follows the heading."""
    return Column(metric, f"{heading} (%)", scale=100, decimals=1)


@dataclasses.dataclass(frozen=True)
class Claim:
    """That the metric is larger in each of some rows than in each of others.

    Attributes:
      text: the claim in words.
      metric: a column's.
      larger, smaller: names of rows.
    """

    text: str
    metric: str
    larger: Sequence[str]
    smaller: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table.

    Attributes:
      title: of the page.
      text: what the table shows, and what must be known to read it; Markdown.
      source: paper or other origin.
      cost: what running it takes.
      rows, columns: of the table.
      seeds: one run of every row for each.
      claims: what should hold between rows.
      step_time: whether the table has a column with the time of a training step, at its fastest.
    """

    title: str
    text: str
    source: str
    cost: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    seeds: Sequence[int] = (0, 1, 2)
    claims: Sequence[Claim] = ()
    step_time: bool = False

    def __post_init__(self):
        rows, metrics = [row.name for row in self.rows], [column.metric for column in self.columns]
        for what, names in (("row", rows), ("column", metrics), ("seed", self.seeds)):
            if not names or len(set(names)) < len(names):
                raise ConfigError(f"experiment '{self.title}': needs at least one {what}, and none twice")
        for row in self.rows:
            if not row.name.isidentifier():
                raise ConfigError(f"row '{row.name}': cannot name a directory; use letters, digits and '_'")
            for metric in row.expected:
                _known(metric, metrics, f"expected of row '{row.name}'")
        for claim in self.claims:
            _known(claim.metric, metrics, f"claim '{claim.text}'")
            for name in [*claim.larger, *claim.smaller]:
                _known(name, rows, f"claim '{claim.text}'")


def names() -> list[str]:
    """The experiments there are."""
    return sorted(file.parent.name for file in EXPERIMENTS.glob("*/experiment.py"))


def load(name: str) -> Experiment:
    """The experiment that `experiments/<name>/experiment.py` declares; the file is trusted code.

    Raises:
      ConfigError: there is none, or its declaration contradicts itself.
    """
    known = names()
    if name not in known:
        raise ConfigError(
            f"'{name}' is not an experiment{suggestion(name, known)}; there are: {', '.join(known) or 'none'}"
        )
    file = EXPERIMENTS / name / "experiment.py"
    spec = importlib.util.spec_from_file_location(f"mmjax_experiment_{name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{file}: defines no EXPERIMENT = Experiment(...)")
    return experiment


def _known(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = suggestion(name, known)
        raise ConfigError(f"{where}: '{name}' is unknown{near}; there are: {', '.join(known)}")
