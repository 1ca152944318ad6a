"""What a family of published models is to the rest of `interop`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from mmjax.errors import ConfigError
from mmjax.interop.layouts import Entry

Section = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

# The sizes of a base transformer, with which most of their configs begin.
BASE_SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
# The linear maps of an attention.
_MAPS = ("query", "key", "value", "out")

# Their names of activations -> ours.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}


class Family(NamedTuple):
    """How the models of one family translate.

    Attributes:
      model_types: the `model_type`s of config.json it reads.
      section: (their config, the names of their tensors) -> our `model` section, whose streams and
        heads need not spell out defaults. Names are canonical, see `canonical`.
      entries: our section, every default filled -> all tensors.
      inputs: their config -> stream -> (shape of one example, dtype), something the model can take.
      export: (our section, the shapes of our variables by path) -> their config, or ConfigError naming
        what it has no word for.
      transforms: (their config, the JSON of their preprocessor or {}) -> stream -> our transforms.
      canonical: (a name on disk, their config) -> the name in `entries`; None for what is no part of the
        model.
      constants: our section -> further tensors to write, which their loader wants and ours has not.
      pad_texts: whether texts are always padded to the full length.
      written_as: the family whose layout is written, where it is another than the one that is read.
      pad_to_longest: streams whose last transform, `pad`, is only as long as the longest of a batch.
    """

    model_types: tuple[str, ...]
    section: Callable[[Mapping[str, Any], Collection[str]], Section]
    entries: Callable[[Section], list[Entry]]
    inputs: Callable[[Mapping[str, Any]], dict[str, tuple[tuple[int, ...], str]]]
    export: Callable[[Section, Shapes], dict[str, Any]]
    transforms: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, list[dict]]]
    canonical: Callable[[str, Mapping[str, Any]], str | None] = lambda key, config: key
    constants: Callable[[Section], dict[str, Any]] = lambda section: {}
    pad_texts: bool = False
    written_as: str | None = None
    pad_to_longest: tuple[str, ...] = ()


def with_defaults(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`settings`, and `defaults` where they say nothing or None."""
    return {**defaults, **{key: value for key, value in settings.items() if value is not None}}


class Settings(Mapping):
    """A config.json with the defaults of its family filled in; what is missing is named."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]):
        self._values = with_defaults(config, defaults)

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise ConfigError(f"weights: config.json has no '{key}'")
        return self._values[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`, where there is one."""
        return self._values.get(key, default)

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def activation(self, key: str = "hidden_act") -> str:
        """Our name of the activation under `key`."""
        name = self[key]
        if name not in _ACTIVATIONS:
            raise ConfigError(
                f"weights: {key} is '{name}', expected one of: {', '.join(sorted(_ACTIVATIONS))}"
            )
        return _ACTIVATIONS[name]

    def expect(self, key: str, *allowed: Any) -> None:
        """Raises ConfigError unless the value under `key` is one that is implemented."""
        if self.get(key, allowed[0]) not in allowed:
            known = ", ".join(repr(value) for value in allowed)
            raise ConfigError(f"weights: {key} is {self[key]!r}, which is not implemented; expected {known}")

    def side(self, key: str) -> int:
        """The side of the square under `key`: a number, or a list of equal ones."""
        size = self[key]
        if isinstance(size, int):
            return size
        if len(set(size)) != 1:
            raise ConfigError(f"weights: {key} is {list(size)}, expected a square")
        return size[0]

    def attention_biases(self) -> list[str]:
        """Our `attention_biases` for their `qkv_bias`; `qkv_bias` below is the inverse."""
        return list(_MAPS) if self["qkv_bias"] else ["out"]

    def encoder(self, kind: str, **more: Any) -> Section:
        """A section of a `TransformerEncoder` with the sizes that most families name alike."""
        return {
            "type": kind,
            "variant": "custom",
            "width": self["hidden_size"],
            "depth": self["num_hidden_layers"],
            "heads": self["num_attention_heads"],
            "mlp_width": self["intermediate_size"],
            "activation": self.activation(),
            "eps": self["layer_norm_eps"],
            **more,
        }


def their_sizes(encoder: Section) -> dict[str, Any]:
    """The inverse of `Settings.encoder`."""
    return {
        "hidden_size": encoder["width"],
        "num_hidden_layers": encoder["depth"],
        "num_attention_heads": encoder["heads"],
        "intermediate_size": encoder["mlp_width"],
        "hidden_act": their_activation(encoder["activation"]),
        "layer_norm_eps": encoder["eps"],
    }


def their_activation(name: str) -> str:
    """Their name of an activation of ours."""
    return _THEIR_ACTIVATIONS[name]


def check_fields(what: str, encoder: Section, expected: Mapping[str, Any]) -> None:
    """Raises ConfigError naming the first field of `encoder` that `what` has another value of."""
    for key, value in expected.items():
        if encoder[key] != value:
            raise ConfigError(f"{what} has {key} {value!r}, this model {encoder[key]!r}")


def qkv_bias(encoder: Section) -> bool:
    """Whether query, key and value have biases; ConfigError where only some have, or the output has none."""
    biases = set(encoder["attention_biases"])
    if biases not in (set(_MAPS), {"out"}):
        raise ConfigError(f"attention_biases {sorted(biases)}: expected all, or only out")
    return "query" in biases


def check_all_biases(what: str, encoder: Section) -> None:
    """Raises ConfigError unless all maps of the attention have biases, as those of `what` do."""
    biases = list(encoder["attention_biases"])
    if set(biases) != set(_MAPS):
        raise ConfigError(f"{what} has attention_biases {list(_MAPS)}, this model {biases}")


def only_encoder(
    what: str, section: Section, stream: str, kind: str, fields: Mapping[str, Any] | None = None
) -> Section:
    """The encoder of a model that is one stream without heads; ConfigError for any other model.

    Args:
      what: is exported, for messages.
      section: ours.
      stream: the name of the stream.
      kind: the type of its encoder.
      fields: of the encoder, with the only values that `what` has; see `check_fields`.
    """
    streams = section["streams"]
    if list(streams) != [stream] or section["heads"] or streams[stream]["encoder"]["type"] != kind:
        raise ConfigError(f"{what} is one stream '{stream}' with the encoder '{kind}' and no heads")
    check_fields(what, streams[stream]["encoder"], fields or {})
    return streams[stream]["encoder"]


def one_stream(stream: str, encoder: Section, kind: str = "") -> Section:
    """The `model` section of an encoder alone."""
    return {"streams": {stream: {"kind": kind or stream, "encoder": encoder}}, "heads": {}}


def canonical_names(
    *prefixes: str, unused: tuple[str, ...] = (), unused_ends: tuple[str, ...] = ()
) -> Callable[[str, Mapping[str, Any]], str | None]:
    """A `Family.canonical` for models whose files differ in what is around them.

    Args:
      prefixes: before the names, where the model is part of a larger one.
      unused: how names begin, without the prefix, that are no part of the model, such as a classifier's.
      unused_ends: how such names end.
    """

    def canonical(key, config):
        del config
        for prefix in prefixes:
            key = key.removeprefix(prefix)
        return None if key.startswith(unused) or key.endswith(unused_ends) else key

    return canonical
