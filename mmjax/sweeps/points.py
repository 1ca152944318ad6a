"""Points: what the trials of a study change in its config, key by key.

A point maps config keys to values. `fold` is no key of a config but one of `folds` parts of the
training data, see `mmjax.training.folds`; `seed` is a key like any other. Points that differ in these
two alone are repeats of one setting.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from mmjax import config as config_lib
from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.sweeps.space import Dimension, plain_json

Point: TypeAlias = dict[str, Any]

FOLD = "fold"
REPEATS = ("seed", FOLD)
_PREFIX = "sweep_"


def sweep_points(
    reference: str,
    names: Sequence[str],
    *,
    seeds: Sequence[int],
    folds: int | None,
    grid: Sequence[Point] | None = None,
) -> list[Point]:
    """The product of a grid, where there is one, and named sweeps; the first changes slowest.

    Args:
      reference: the config file, whose functions `sweep_<name>()` yield points.
      names: of sweeps; `seed` and `fold` need no function.
      seeds: for `seed`.
      folds: for `fold`.
      grid: from `grid_points`.

    Raises:
      ConfigError: a name that is unknown, a sweep that is empty or yields what is no point, two that
        set one key, or a point that comes twice.
    """
    known: dict[str, Callable[[], Any]] = {
        "seed": lambda: [{"seed": seed} for seed in seeds],
        FOLD: lambda: [{FOLD: fold} for fold in range(folds or 0)],
    }
    for name, function in config_lib.functions(reference, _PREFIX).items():
        if name in known:
            raise ConfigError(f"{reference}: {_PREFIX}{name}: '{name}' is built in; choose another name")
        known[name] = function
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--sweep={name}: is unknown{suggestion(name, known)}; there are: {', '.join(known)} (a "
                f"function {_PREFIX}NAME() of the config file adds one)"
            )
        if names.count(name) > 1:
            raise ConfigError(f"--sweep={','.join(names)}: '{name}' is given twice")
    if "seed" in names and not seeds:
        raise ConfigError("--sweep=seed: give the seeds too, such as --seeds=0,1,2")
    if FOLD in names and folds is None:
        raise ConfigError("--sweep=fold: give the number of folds too, such as --folds=5")
    if FOLD in names and folds < 2:
        raise ConfigError(f"--folds={folds}: expected 2 or more")
    parts = {"search_space": list(grid)} if grid is not None else {}
    parts |= {name: _yielded(name, known[name]) for name in names}
    for (one, first), (other, second) in itertools.combinations(parts.items(), 2):
        shared = set().union(*first) & set().union(*second)
        if shared:
            raise ConfigError(f"--sweep: '{one}' and '{other}' both set {sorted(shared)[0]}; leave one out")
    rows = itertools.product(*parts.values())
    points = [dict(itertools.chain(*(point.items() for point in row))) for row in rows]
    seen = set()
    for point in points:
        text = plain_json(point, "")
        if text in seen:
            raise ConfigError(f"--sweep={','.join(names)}: gives {label(point)} twice; yield each point once")
        seen.add(text)
    return points


def grid_points(space: Mapping[str, Dimension]) -> list[Point]:
    """Every combination of the values of a space.

    Raises:
      ConfigError: a dimension has infinitely many.
    """
    for key, dimension in space.items():
        if dimension.values() is None:
            raise ConfigError(
                f"--search=grid: {key} has infinitely many values; give it choice([...]) or integers(...)"
            )
    keys = list(space)
    return [
        dict(zip(keys, row, strict=True))
        for row in itertools.product(*(dimension.values() for dimension in space.values()))
    ]


def texts(point: Mapping[str, Any]) -> dict[str, str]:
    """A point as the command line writes it, without its fold: key -> text after `--config.key=`."""
    return {key: _text(value) for key, value in point.items() if key != FOLD}


def setting(point: Mapping[str, Any]) -> Point:
    """A point without its repeats: without seed and fold."""
    return {key: value for key, value in point.items() if key not in REPEATS}


def label(point: Mapping[str, Any]) -> str:
    """A point in a few words."""
    return ", ".join(f"{key}={shown(value)}" for key, value in sorted(point.items())) or "as it is"


def short_names(keys: Sequence[str]) -> list[str]:
    """The ends of keys, as long as it takes to tell them apart."""
    for parts in range(1, 1 + max((key.count(".") + 1 for key in keys), default=1)):
        names = [".".join(key.split(".")[-parts:]) for key in keys]
        if len(set(names)) == len(names):
            return names
    return list(keys)


def shown(value: Any) -> str:
    """A value in a few characters; a component by its name, such as 'film (depth=1)'."""
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        fields = ", ".join(f"{key}={shown(item)}" for key, item in sorted(value.items()) if key != "type")
        return value["type"] + (f" ({fields})" if fields else "")
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _yielded(name: str, function: Callable[[], Any]) -> list[Point]:
    where = f"{_PREFIX}{name}()"
    found = function()
    if found is None or isinstance(found, Mapping | str):
        raise ConfigError(f"{where}: gives {found!r}, expected several mappings of config keys to values")
    try:
        points = list(found)
    except TypeError:
        raise ConfigError(f"{where}: gives {found!r}, expected several mappings of keys to values") from None
    for point in points:
        if not isinstance(point, Mapping) or not point:
            raise ConfigError(f"{where}: yields {point!r}, expected a mapping of config keys to values")
        for key, value in point.items():
            plain_json(value, f"{where}: {key}")
        if FOLD in point and name != FOLD:
            raise ConfigError(f"{where}: sets 'fold'; use the built-in sweep: --sweep={name},fold --folds=5")
    if not points:
        raise ConfigError(f"{where}: yields nothing; let it yield at least one mapping of keys to values")
    return [dict(point) for point in points]


def _text(value: Any) -> str:
    """As an override is written; a component reads it by the type of its key."""
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value, sort_keys=True)
