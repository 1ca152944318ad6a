"""Reads a config, applies the command line's overrides, checks it, and fills every default.

A config is plain data. A `.py` file is trusted code whose `get_config(arg)` returns it as an
`ml_collections.ConfigDict`; a `.json` file is parsed as JSON and nothing in it is ever executed.
The result of `resolve` holds every key with its final value; written as JSON it is itself a config
that gives the same run.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import json
import pathlib
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mmjax import components, schema
from mmjax.errors import ConfigError


def resolve(reference: str, overrides: Mapping[str, str] | None = None) -> ConfigDict:
    """The config that a run uses.

    Args:
      reference: `FILE.py`, `FILE.py:ARG` (the text goes to `get_config`), or `FILE.json`.
      overrides: dotted key (`optimizer.schedule.peak`, `data.streams.image.train.1.size`) -> text,
        read by the type that the key's component declares.

    Raises:
      ConfigError: one line that names the key, what was expected and the nearest right name.
    """
    return resolve_raw(load(reference), overrides or {})


def resolve_raw(raw: Mapping[str, Any], overrides: Mapping[str, str]) -> ConfigDict:
    """As `resolve`, of a config as `load` gives it, which is left as it is."""
    raw = copy.deepcopy(to_dict(raw))
    for key, text in overrides.items():
        _override(raw, key, text)
    return check(components.normalise(raw, schema.Config, ""))


def load(reference: str) -> dict[str, Any]:
    """The config as written: nothing is checked and no default filled."""
    path, separator, argument = reference.partition(":")
    file = pathlib.Path(path)
    if not file.is_file():
        near = _near_files(file)
        raise ConfigError(f"--config={reference}: no file '{path}'{near}")
    if file.suffix == ".json":
        if separator:
            raise ConfigError(f"--config={reference}: a JSON config takes no argument after ':'")
        return _load_json(file)
    if file.suffix == ".py":
        return _load_python(file, argument)
    raise ConfigError(f"--config={reference}: expected a file that ends in .py or .json")


def functions(reference: str, prefix: str) -> dict[str, Callable[[], Any]]:
    """What a `.py` config defines besides `get_config`: the functions whose names begin with `prefix`.

    As `get_config`, each may take the text after the colon. A JSON config has none.

    Returns:
      Name without the prefix -> the function, called without arguments.
    """
    path, _, argument = reference.partition(":")
    file = pathlib.Path(path)
    if file.suffix != ".py" or not file.is_file():
        return {}
    found = {name: item for name, item in vars(_module(file)).items() if name.startswith(prefix)}
    return {
        name.removeprefix(prefix): functools.partial(_call, item, argument)
        for name, item in found.items()
        if inspect.isfunction(item)
    }


def arguments(text: str, **defaults: Any) -> ConfigDict:
    """Reads the text after `FILE.py:`, such as `res=224,variant=B/16`, for a `get_config`.

    Each value takes the type of its default; a bare name sets a boolean to true.
    """
    result = dict(defaults)
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, separator, value = part.partition("=")
        if key not in defaults:
            near = components.suggestion(key, defaults)
            raise ConfigError(f"config argument '{key}' is unknown{near}; it takes: {', '.join(defaults)}")
        value = value if separator else "true"
        result[key] = components.normalise(components.Text(value), type(defaults[key]), f"argument {key}")
    return ConfigDict(result)


def to_json(config: ConfigDict | Mapping) -> str:
    """The config as the JSON text that `config.json` of a run holds."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n"


def to_dict(value: Any) -> Any:
    """Plain dicts and lists all the way down."""
    if hasattr(value, "items"):
        return {key: to_dict(item) for key, item in value.items()}
    if isinstance(value, tuple):
        raise ConfigError(f"got the tuple {value!r}: JSON has none, write a list")
    if isinstance(value, list):
        return [to_dict(item) for item in value]
    return value


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """Lines `key: old -> new` for every leaf in which two configs differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in sorted(set(old) | set(new)):
            inner = f"{path}.{key}" if path else key
            lines += difference(old.get(key, "(absent)"), new.get(key, "(absent)"), inner)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        lines = []
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            lines += difference(before, after, f"{path}.{i}")
        return lines
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def check(config: Mapping[str, Any]) -> ConfigDict:
    """Checks what no single key's type can say, and returns the config as a `ConfigDict`."""
    totals = [key for key in ("total_steps", "total_epochs", "total_examples") if config[key] is not None]
    if len(totals) != 1:
        raise ConfigError(
            f"the length of training is given by {' and '.join(totals) or 'nothing'}; "
            "set exactly one of total_steps, total_epochs, total_examples, the others to none"
        )
    if config["batch_size"] <= 0:
        raise ConfigError(f"batch_size: got {config['batch_size']}, expected more than 0")
    if config[totals[0]] < 0:
        raise ConfigError(f"{totals[0]}: got {config[totals[0]]}, expected 0 (trains nothing) or more")
    least_values = {"data.num_workers": 0, "data.prefetch": 1, "log.every_steps": 1, "checkpoint.keep": 1}
    for key, least in least_values.items():
        section, name = key.split(".")
        if config[section][name] < least:
            raise ConfigError(f"{key}: got {config[section][name]}, expected {least} or more")
    data, streams = config["data"], config["model"]["streams"]
    if not streams:
        raise ConfigError("model.streams: is empty; a model needs at least one stream")
    if not config["objectives"]:
        raise ConfigError("objectives: is empty; training needs at least one")
    for name in streams:
        _known(name, data["streams"], f"model.streams.{name}", "data.streams")
    for name, section in data["eval"].items():
        for stream in [*section["drop"], *section["streams"]]:
            _known(stream, data["streams"], f"data.eval.{name}", "data.streams")
    for path, chain in transforms(data):
        for i, transform in enumerate(chain):
            if "tokenizer" in transform:
                _known(transform["tokenizer"], data["tokenizers"], f"{path}.{i}.tokenizer", "data.tokenizers")
    for name, section in config["evals"].items():
        _known(section["data"], ["train", *data["eval"]], f"evals.{name}.data", "data.eval")
    optimizer = config["optimizer"]
    patterns = [*optimizer["frozen"], *(m["pattern"] for m in optimizer["multipliers"])]
    if not 0 <= config["mesh"]["max_replicated"] <= 1:
        raise ConfigError(
            f"mesh.max_replicated: got {config['mesh']['max_replicated']}, expected a share, 0 to 1"
        )
    lora = config["lora"]
    for pattern in [*patterns, *config["init"]["include"], *config["init"]["exclude"], *lora["patterns"]]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"'{pattern}' is not a regular expression ({error})") from None
    if not 0 <= optimizer["ema"] < 1:
        raise ConfigError(f"optimizer.ema: got {optimizer['ema']}, expected 0 (none) to less than 1")
    if lora["rank"] < 0:
        raise ConfigError(f"lora.rank: got {lora['rank']}, expected 0 (no factors) or more")
    if lora["rank"] and not lora["patterns"]:
        raise ConfigError(
            "lora.patterns: is empty; name the kernels that get factors, such as "
            "'text_encoder/.*/(query|value)/kernel', or set lora.rank=0"
        )
    if lora["patterns"] and not lora["rank"]:
        raise ConfigError("lora.rank: is 0, but lora.patterns names kernels; set it to 1 or more, such as 8")
    if lora["alpha"] is not None and lora["alpha"] <= 0:
        raise ConfigError(f"lora.alpha: got {lora['alpha']}, expected more than 0, or none (the rank)")
    return ConfigDict(config)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Parts `--config.key=value` (or `--config.key value`) from the other arguments."""
    rest, overrides, position = [], {}, 0
    while position < len(argv):
        item = argv[position]
        if item.startswith("--config."):
            key, separator, value = item.removeprefix("--config.").partition("=")
            if not separator:
                position += 1
                if position == len(argv):
                    raise ConfigError(f"{item}: has no value; write {item}=VALUE")
                value = argv[position]
            if key in overrides:
                raise ConfigError(f"--config.{key}: is given twice; give it once")
            overrides[key] = value
        else:
            rest.append(item)
        position += 1
    return rest, overrides


def transforms(data: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """(key, transforms) of every chain in a `data` section."""
    for name, stream in data["streams"].items():
        for part in ("train", "eval"):
            yield f"data.streams.{name}.{part}", stream[part]
    for name, section in data["eval"].items():
        for stream, chain in section["streams"].items():
            yield f"data.eval.{name}.streams.{stream}", chain


def _known(name, known, path, where):
    if name not in known:
        near = components.suggestion(name, known)
        raise ConfigError(f"{path}: '{name}' is not in {where}{near}; it has: {', '.join(known)}")


def _override(raw: dict, key: str, text: str) -> None:
    node: Any = raw
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        if isinstance(node, list):
            node = node[_index(node, part, where)]
        elif isinstance(node, dict):
            if not isinstance(node.get(part), dict | list):
                node[part] = {}  # a section that the file leaves at its default
            node = node[part]
    if isinstance(node, list):
        node[_index(node, last, key)] = components.Text(text)
    else:
        node[last] = components.Text(text)


def _index(items: list, part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{where}: got '{part}', expected an index from 0 to {len(items) - 1} of this list")
    return int(part)


def _load_json(file: pathlib.Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config={file}: is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"--config={file}: holds a {type(value).__name__}, expected an object of keys")
    return value


def _load_python(file: pathlib.Path, argument: str) -> dict:
    get_config = getattr(_module(file), "get_config", None)
    if get_config is None:
        raise ConfigError(f"--config={file}: defines no function get_config(arg='')")
    if argument and not inspect.signature(get_config).parameters:
        raise ConfigError(f"--config={file}:{argument}: its get_config() takes no argument")
    return to_dict(_call(get_config, argument))


def _module(file: pathlib.Path) -> types.ModuleType:
    module_spec = importlib.util.spec_from_file_location(f"mmjax_config_{file.stem}", file)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def _call(function: Callable, argument: str) -> Any:
    return function(argument) if inspect.signature(function).parameters else function()


def _near_files(file: pathlib.Path) -> str:
    folder = file.parent if file.parent.is_dir() else pathlib.Path("configs")
    names = [str(p) for pattern in ("*.py", "*.json") for p in folder.glob(pattern)]
    known = f"; {folder} has: {', '.join(sorted(names))}" if names else ""
    return components.suggestion(str(file), names) or known
