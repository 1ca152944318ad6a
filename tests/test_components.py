"""The schema that dataclasses declare: checking, defaults, overrides, building."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest

from mmjax import components
from mmjax.components import Text, component, normalise
from mmjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Small:
    width: int = 8
    rate: float = 0.5
    kind: Literal["cls", "mean"] = "mean"
    dtype: Any = "float32"  # not a config field


@dataclasses.dataclass(frozen=True)
class Wrapper:
    inner: component("test_room")
    repeat: list[int] = dataclasses.field(default_factory=lambda: [1])
    limit: int | None = None
    others: dict[str, component("test_room")] = dataclasses.field(default_factory=dict)


TABLE = {"small": Small, "wrapper": Wrapper}


@pytest.fixture(autouse=True)
def room(monkeypatch):
    monkeypatch.setitem(components.ROOMS, "test_room", f"{__name__}:TABLE")


ROOM = component("test_room")


def test_defaults_are_filled_all_the_way_down():
    value = normalise({"type": "wrapper", "inner": {"type": "small", "width": 3}}, ROOM, "model")
    assert value == {
        "type": "wrapper",
        "inner": {"type": "small", "width": 3, "rate": 0.5, "kind": "mean"},
        "repeat": [1],
        "limit": None,
        "others": {},
    }
    assert normalise(value, ROOM, "model") == value


def test_build_makes_nested_dataclasses_and_passes_what_is_not_config():
    spec = normalise(
        {"type": "wrapper", "inner": {"type": "small"}, "others": {"a": {"type": "small"}}}, ROOM, "m"
    )
    built = components.build("test_room", spec, dtype="bfloat16")
    assert built == Wrapper(Small(dtype="bfloat16"), others={"a": Small(dtype="bfloat16")})


@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        ({"type": "smal"}, ["model.type", "'smal'", "did you mean 'small'", "wrapper"]),
        ({"type": "small", "widht": 3}, ["model.widht", "did you mean 'width'", "rate"]),
        ({"type": "small", "width": 2.5}, ["model.width", "2.5", "a whole number"]),
        ({"type": "small", "width": True}, ["model.width", "True", "a whole number"]),
        ({"type": "small", "rate": "fast"}, ["model.rate", "'fast'", "a number"]),
        ({"type": "small", "rate": float("nan")}, ["model.rate", "nan"]),
        ({"type": "small", "kind": "men"}, ["model.kind", "did you mean 'mean'"]),
        ({"width": 3}, ["model: has no 'type'", "small, wrapper"]),
        ({"type": "wrapper"}, ["model.inner", "is missing"]),
        ({"type": "wrapper", "inner": {"type": "small"}, "repeat": (1, 2)}, ["model.repeat", "a list"]),
        ({"type": "wrapper", "inner": {"type": "small"}, "repeat": [1, "x"]}, ["model.repeat.1", "'x'"]),
        (7, ["model", "7", "a mapping"]),
    ],
)
def test_errors_name_the_key_and_what_was_expected(value, fragments):
    with pytest.raises(ConfigError) as error:
        normalise(value, ROOM, "model")
    message = str(error.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_an_int_is_a_fine_float_and_text_is_read_by_the_declared_type():
    value = normalise({"type": "small", "rate": 1, "width": Text("12"), "kind": Text("cls")}, ROOM, "")
    assert value["rate"] == 1.0 and isinstance(value["rate"], float)
    assert value["width"] == 12 and value["kind"] == "cls"
    value = normalise(
        {"type": "wrapper", "inner": Text('{"type": "small"}'), "limit": Text("none")}, ROOM, ""
    )
    assert value["inner"]["width"] == 8 and value["limit"] is None
    assert normalise(Text("[1, 2]"), list[int], "x") == [1, 2]
    assert normalise(Text("true"), bool, "x") is True


@pytest.mark.parametrize("text", ["yes", "1", "False "])
def test_booleans_are_true_or_false_and_nothing_else(text):
    with pytest.raises(ConfigError, match="true or false"):
        normalise(Text(text), bool, "x")


def test_swapping_a_type_on_the_command_line_drops_the_old_parts_keys_but_never_an_override():
    old = {"type": Text("small"), "repeat": [2], "width": 4}
    assert normalise(old, ROOM, "m") == {"type": "small", "width": 4, "rate": 0.5, "kind": "mean"}
    with pytest.raises(ConfigError, match="m.repeat"):
        normalise({**old, "repeat": Text("[3]")}, ROOM, "m")
