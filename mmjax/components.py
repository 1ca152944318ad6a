"""Components: dataclasses that a config chooses by name, and the types their fields declare.

A room (encoders, fusion, objectives, ...) holds one table `{name: dataclass}`; a Linen module is a
dataclass too. In a config a component is a mapping `{'type': name, **fields}`. The annotations of
the dataclass are its schema: they check a config, give defaults, and say how the text of a
command-line override is read. There is no second list of keys anywhere.

Annotations understood in a field that a config may set: `bool`, `int`, `float`, `str`,
`Literal[...]`, `Optional[T]`, `list[T]` (`Sequence[T]` in a Linen module, which turns lists into
tuples), `dict[str, T]`, a dataclass (a plain section), and
`component("room")` (a nested component). A field with any other annotation (a dtype, an array, a
callable) is not part of the config: code sets it.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from absl import logging

from mmjax.errors import ConfigError

# Every room whose parts a config can name, and the table that lists them.
ROOMS = {
    "datasets": "mmjax.data.datasets:DATASETS",
    "transforms": "mmjax.data.transforms:TRANSFORMS",
    "batch_transforms": "mmjax.data.batch_transforms:BATCH_TRANSFORMS",
    "tokenizers": "mmjax.data.tokenizers:TOKENIZERS",
    "encoders": "mmjax.encoders:ENCODERS",
    "fusions": "mmjax.fusion:FUSIONS",
    "heads": "mmjax.heads:HEADS",
    "objectives": "mmjax.objectives:OBJECTIVES",
    "optimizers": "mmjax.training.optimizer:OPTIMIZERS",
    "schedules": "mmjax.training.schedules:SCHEDULES",
    "evaluators": "mmjax.evaluation:EVALUATORS",
}

# The origins of `list[T]` and `Sequence[T]`.
_LISTS = (list, Sequence)

# Linen adds these two fields to every module.
_LINEN_FIELDS = ("parent", "name")


class Text(str):
    """The text of a command-line override, to be read by the type of the key it is for."""


@dataclasses.dataclass(frozen=True)
class _Room:
    name: str


def component(room: str) -> Any:
    """The annotation of a field that holds one component of `room`."""
    return Annotated[Any, _Room(room)]


def table(room: str) -> Mapping[str, type]:
    """The table `{name: dataclass}` of a room."""
    module, attribute = ROOMS[room].split(":")
    return getattr(importlib.import_module(module), attribute)


def suggestion(given: str, known) -> str:
    """` (did you mean 'x'?)` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(str(given), [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def fields(cls: type) -> dict[str, tuple[Any, Any]]:
    """`{name: (annotation, default)}` of the fields of `cls` that a config may set.

    The default is `dataclasses.MISSING` for a required field.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    found = {}
    ignored = _LINEN_FIELDS if hasattr(cls, "apply") else ()  # only a Linen module has `apply`
    for field in dataclasses.fields(cls):
        if not field.init or field.name in ignored or not _settable(hints[field.name]):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(default, tuple):  # how a Linen module writes the default of a list
            default = list(default)
        found[field.name] = (hints[field.name], default)
    return found


def normalise(value: Any, hint: Any, path: str) -> Any:
    """Checks `value` against the annotation `hint`; returns plain data with every default filled.

    Args:
      value: what a config holds at `path`; leaves may be `Text` (an override still to be read).
      hint: an annotation of the kinds listed in the module docstring.
      path: the dotted key, for messages.

    Raises:
      ConfigError: naming the key, what was given, what was expected and the nearest right name.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and isinstance(arguments[1], _Room):
        return _normalise_component(value, arguments[1].name, path)
    if origin is Literal:
        return _normalise_literal(value, arguments, path)
    if origin in (Union, types.UnionType):  # only Optional[T]
        inner = next(a for a in arguments if a is not type(None))
        if value is None or (isinstance(value, Text) and value.lower() in ("none", "null")):
            return None
        return normalise(value, inner, path)
    if origin in _LISTS:
        return _normalise_list(value, arguments[0], path)
    if origin is dict:
        given = _mapping(value, path)
        return {key: normalise(item, arguments[1], f"{path}.{key}") for key, item in given.items()}
    if dataclasses.is_dataclass(hint):
        return _normalise_fields(_mapping(value, path), hint, path, what=path or "the config")
    return _normalise_scalar(value, hint, path)


def build(room: str, spec: Mapping[str, Any], **extra: Any) -> Any:
    """The component that a normalised `spec` describes.

    Nested components are built too. `extra` (a dtype, say) is passed to every dataclass on the way
    that has a field of that name outside its config fields.
    """
    cls = table(room)[spec["type"]]
    declared = fields(cls)
    arguments = {key: _build_value(spec[key], declared[key][0], extra) for key in declared if key in spec}
    names = {f.name for f in dataclasses.fields(cls) if f.init} - set(declared) - set(_LINEN_FIELDS)
    arguments |= {key: value for key, value in extra.items() if key in names}
    return cls(**arguments)


def describe(room: str, part: Any) -> dict[str, Any]:
    """The spec of a component: what `build` made it from, every field spelled out.

    Raises:
      ConfigError: where the room has no such component.
    """
    name = next((name for name, cls in table(room).items() if type(part) is cls), None)
    if name is None:
        raise ConfigError(f"{room}: a {type(part).__name__} is none of: {', '.join(table(room))}")
    spec = {key: _describe_value(getattr(part, key), hint) for key, (hint, _) in fields(type(part)).items()}
    return {"type": name, **spec}


def _describe_value(value, hint):
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None:
        return None
    if origin is Annotated:
        return describe(arguments[1].name, value)
    if origin in (Union, types.UnionType):
        return _describe_value(value, next(a for a in arguments if a is not type(None)))
    if origin in _LISTS:
        return [_describe_value(item, arguments[0]) for item in value]
    if origin is dict:
        return {key: _describe_value(item, arguments[1]) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return {key: _describe_value(getattr(value, key), hint_) for key, (hint_, _) in fields(hint).items()}
    return value


def _build_value(value, hint, extra):
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None:
        return None
    if origin is Annotated:
        return build(arguments[1].name, value, **extra)
    if origin in (Union, types.UnionType):
        return _build_value(value, next(a for a in arguments if a is not type(None)), extra)
    if origin in _LISTS:
        return [_build_value(item, arguments[0], extra) for item in value]
    if origin is dict:
        return {key: _build_value(item, arguments[1], extra) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        declared = fields(hint)
        return hint(**{k: _build_value(v, declared[k][0], extra) for k, v in value.items()})
    return value


def _overridden(value) -> bool:
    """Whether any leaf of `value` came from the command line."""
    if isinstance(value, Mapping):
        return any(_overridden(item) for item in value.values())
    if isinstance(value, list):
        return any(_overridden(item) for item in value)
    return isinstance(value, Text)


def _settable(hint) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return isinstance(arguments[1], _Room)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return len(inner) == 1 and len(arguments) == 2 and _settable(inner[0])
    if origin in _LISTS:
        return _settable(arguments[0])
    if origin is dict:
        return arguments[0] is str and _settable(arguments[1])
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return not hasattr(hint, "apply")  # a Linen module is a component, never a plain section
    return hint in (bool, int, float, str)


def _mapping(value, path) -> dict:
    if isinstance(value, Text):
        value = _json(value, path, "a JSON object")
    if not isinstance(value, Mapping) and not hasattr(value, "items"):
        raise ConfigError(f"{path}: got {value!r}, expected a mapping of keys to values")
    return dict(value.items())


def _json(text, path, what):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: got {str(text)!r}, expected {what} ({error})") from None


def _normalise_component(value, room, path):
    known = table(room)
    given = _mapping(value, path)
    if "type" not in given:
        raise ConfigError(f"{path}: has no 'type'; expected one of: {', '.join(sorted(known))}")
    chosen = given.pop("type")
    name = str(chosen)
    if name not in known:
        hint = suggestion(name, known)
        raise ConfigError(f"{path}.type: got '{name}'{hint}; expected one of: {', '.join(sorted(known))}")
    if isinstance(chosen, Text):  # swapped on the command line: the old part's own keys go with it
        declared = fields(known[name])
        gone = [key for key in given if key not in declared and not _overridden(given[key])]
        if gone:
            logging.info("%s is now '%s'; left out: %s", path, name, ", ".join(gone))
        given = {key: item for key, item in given.items() if key not in gone}
    checked = _normalise_fields(given, known[name], path, what=f"'{name}'")
    return {"type": name, **checked}


def _normalise_fields(given, cls, path, what):
    declared = fields(cls)
    prefix = f"{path}." if path else ""
    for key in given:
        if key not in declared:
            expected = ", ".join(sorted(declared)) or "no keys at all"
            raise ConfigError(
                f"{prefix}{key}: unknown key{suggestion(key, declared)}; {what} has: {expected}"
            )
    result = {}
    for key, (hint, default) in declared.items():
        if key in given:
            result[key] = normalise(given[key], hint, prefix + key)
        elif default is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{key}: is missing; {what} needs it ({_describe(hint)})")
        elif dataclasses.is_dataclass(default):
            result[key] = normalise(dataclasses.asdict(default), hint, prefix + key)
        else:
            result[key] = default if default is None else normalise(default, hint, prefix + key)
    return result


def _normalise_literal(value, choices, path):
    for choice in choices:
        same_kind = isinstance(value, bool) == isinstance(choice, bool)  # 1 == True
        read = value.lower() if isinstance(value, Text) and isinstance(choice, bool) else value
        if (value == choice and same_kind) or (isinstance(value, Text) and read == _written(choice)):
            return choice
    written = [_written(choice) for choice in choices]
    raise ConfigError(
        f"{path}: got {_show(value)}{suggestion(value, written)}; expected one of: {', '.join(written)}"
    )


def _written(choice) -> str:
    """A choice of a `Literal` as a config's JSON and the command line write it."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _normalise_list(value, hint, path):
    if isinstance(value, Text):
        value = _json(value, path, "a JSON list such as [1, 2]")
    if not isinstance(value, list):
        raise ConfigError(f"{path}: got {_show(value)}, expected a list such as [a, b]")
    return [normalise(item, hint, f"{path}.{i}") for i, item in enumerate(value)]


def _normalise_scalar(value, hint, path):
    read = _read_text(value, hint) if isinstance(value, Text) else value
    if hint is float and isinstance(read, int) and not isinstance(read, bool):
        read = float(read)
    if hint is str and isinstance(read, str):
        return str(read)
    if type(read) is hint and not (hint is float and math.isnan(read)):
        return read
    raise ConfigError(f"{path}: got {_show(value)}, expected {_describe(hint)}")


def _read_text(text, hint):
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text


def _show(value) -> str:
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{str(value) if isinstance(value, Text) else value!r}{kind}"


def _describe(hint) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"a component of '{arguments[1].name}', a mapping with a 'type'"
    if origin is Literal:
        return "one of: " + ", ".join(_written(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return f"{_describe(next(a for a in arguments if a is not type(None)))}, or none"
    if origin in _LISTS:
        return f"a list of {_describe(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a mapping"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]
