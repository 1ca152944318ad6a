"""What must hold between the parts of a model, and between them and the data.

The type of each key is checked before, by `mmjax.components`; here it is the combination.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import components
from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.heads import entries

# Axes of one example, and the kind of its numbers.
_KINDS = {
    "image": ("[height, width, C]", 3, np.floating),
    "text": ("[L]", 1, np.integer),
    "audio": ("[T, C]", 2, np.floating),
    "waveform": ("[T]", 1, np.floating),
    "video": ("[T, height, width, C]", 4, np.floating),
}

# Names that the batch and the outputs use for something else.
_RESERVED = ("example", "fused")


def check_model(config: Mapping[str, Any]) -> None:
    """Whether the parts of the model of a resolved config fit together.

    Raises:
      ConfigError: one line that names the key, what was expected and the nearest right name.
    """
    streams, heads = config["model"]["streams"], config["model"]["heads"]
    if not streams:
        raise ConfigError("model.streams: is empty; a model needs at least one stream")
    for name, section in streams.items():
        _check_name(name, f"model.streams.{name}")
        _check_encoder(name, section, streams)
    readable = [*streams, "fused"] if config["model"]["fusion"] else [*streams]
    labels = config["data"]["labels"]
    named = {*labels, *(name for part in config["data"]["eval"].values() for name in part["labels"])}
    for name, head in heads.items():
        _check_name(name, f"model.heads.{name}")
        if name in named or name in streams:
            raise ConfigError(
                f"model.heads.{name}: a {'label' if name in named else 'stream'} has this name too, and "
                "evaluators find outputs and labels by name; rename one of them"
            )
        _check_head(head, f"model.heads.{name}", readable, streams, labels)
    for name, view in config["model"].get("views", {}).items():
        _check_name(name, f"model.views.{name}")
        if name in streams:
            raise ConfigError(f"model.views.{name}: a stream has this name too; rename one of them")
        _check_view(view, f"model.views.{name}", streams, config["data"]["streams"])


def _check_view(
    view: Mapping[str, Any], path: str, streams: Mapping[str, Any], data: Collection[str]
) -> None:
    if not view["streams"] and not view["drop"]:
        raise ConfigError(f"{path}: is the model as it is; set streams, drop, or both")
    for stream, other in view["streams"].items():
        _known(stream, streams, f"{path}.streams", "model.streams has")
        _known(other, data, f"{path}.streams.{stream}", "data.streams has")
    for stream in view["drop"]:
        _known(stream, streams, f"{path}.drop", "model.streams has")
    if set(streams) <= set(view["drop"]):
        raise ConfigError(f"{path}.drop: drops every stream; leave at least one")


def check_data(config: Mapping[str, Any], spec: Mapping[str, tuple[Sequence[int], Any]]) -> None:
    """Whether the data gives every stream of the model, as the array that its kind is.

    Args:
      config: a resolved config.
      spec: name in the batch -> (shape of one example, dtype).

    Raises:
      ConfigError: one line that names the stream, what the data gives and what was expected.
    """
    streams = config["model"]["streams"]
    for name, section in streams.items():
        _known(name, spec, f"model.streams.{name}", "the data gives")
        owner = streams[section["share"] or name]
        encoder = components.table("encoders")[owner["encoder"]["type"]]
        _check_kind(name, section["kind"], encoder, *spec[name])
        for further in getattr(encoder, "further", ()):
            if f"{name}_{further}" not in spec:
                raise ConfigError(
                    f"model.streams.{name}.encoder: '{owner['encoder']['type']}' needs '{name}_{further}', "
                    f"which the data does not give; see its transforms for data.streams.{name}"
                )
    for view, section in config["model"].get("views", {}).items():
        for name, other in section["streams"].items():
            if _shape(spec[name]) != _shape(spec[other]):
                raise ConfigError(
                    f"model.views.{view}.streams.{name}: '{other}' is {_written(spec[other])} per example, "
                    f"expected {_written(spec[name])}, as '{name}' is; give both the same last transforms"
                )


def _shape(entry: tuple[Sequence[int], Any]) -> tuple[list[int], np.dtype]:
    return list(entry[0]), np.dtype(entry[1])


def _written(entry: tuple[Sequence[int], Any]) -> str:
    shape, dtype = _shape(entry)
    return f"{dtype} {shape}"


def _check_name(name: str, path: str) -> None:
    if not name.isidentifier() or name in _RESERVED:
        raise ConfigError(
            f"{path}: '{name}' cannot be a name; use letters, digits and underscores, "
            f"and none of: {', '.join(_RESERVED)}"
        )


def _check_encoder(name: str, section: Mapping[str, Any], streams: Mapping[str, Any]) -> None:
    path, owner = f"model.streams.{name}", section["share"]
    if not owner:
        if not section["encoder"]:
            raise ConfigError(f"{path}: has no encoder; set encoder, or share to use another stream's")
        return
    if section["encoder"]:
        raise ConfigError(f"{path}: has both encoder and share; keep one of them")
    if section["init"]:
        raise ConfigError(f"{path}: has both init and share; set init where the encoder is, in '{owner}'")
    _known(owner, [other for other in streams if other != name], f"{path}.share", "the other streams are")
    if streams[owner]["share"]:
        raise ConfigError(
            f"{path}.share: '{owner}' has no encoder of its own; name '{streams[owner]['share']}'"
        )
    if streams[owner]["kind"] != section["kind"]:
        raise ConfigError(
            f"{path}.share: '{owner}' is {streams[owner]['kind']} and '{name}' is {section['kind']}; "
            "streams that share an encoder are of one kind"
        )


def _check_kind(name: str, kind: str, encoder: Any, shape: Sequence[int], dtype: Any) -> None:
    axes, rank, numbers = _KINDS[kind]
    if hasattr(encoder, "axes"):
        axes, rank = encoder.axes, encoder.axes.count(",") + 1
    if len(shape) != rank or not np.issubdtype(_float_as_numpy(dtype), numbers):
        raise ConfigError(
            f"model.streams.{name}: the data gives {np.dtype(dtype)} {list(shape)} per example, expected "
            f"{'whole numbers' if numbers is np.integer else 'floats'} {axes} for kind '{kind}'; "
            f"change the kind, or the transforms in data.streams.{name}"
        )


def _float_as_numpy(dtype: Any) -> np.dtype:
    """`dtype`, with bfloat16, which numpy does not count among its floats, as float32."""
    return np.dtype(np.float32) if str(np.dtype(dtype)) == "bfloat16" else np.dtype(dtype)


def _check_head(
    head: Mapping[str, Any],
    path: str,
    readable: Collection[str],
    streams: Mapping[str, Any],
    labels: Collection[str],
) -> None:
    reads = entries(head)
    if "reads" in head and not reads:
        raise ConfigError(f"{path}.reads: is empty; name at least one of: {', '.join(readable)}")
    for entry in reads:
        if entry == "fused" and entry not in readable:
            raise ConfigError(
                f"{path}.reads: is 'fused', but the model has no fusion; set model.fusion, "
                f"or read one of: {', '.join(readable)}"
            )
        _known(entry, readable, f"{path}.reads", "the model has")
        if reads.count(entry) > 1:
            raise ConfigError(f"{path}.reads: names '{entry}' twice; name it once")
    if "label" in head:
        _known(head["label"], labels, f"{path}.label", "data.labels has")
    if "stream" in head:
        _known(head["stream"], streams, f"{path}.stream", "model.streams has")
        stream, kind = head["stream"], streams[head["stream"]]["kind"]
        if kind != "text":
            raise ConfigError(f"{path}.stream: '{stream}' is of kind '{kind}', expected kind 'text'")


def _known(name: str, known: Collection[str], path: str, where: str) -> None:
    if name not in known:
        names = ", ".join(known) or "nothing"
        raise ConfigError(f"{path}: '{name}' is not there{suggestion(name, known)}; {where}: {names}")
