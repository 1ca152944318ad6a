"""Names of classes and templates of prompts that are used for zero-shot classification in papers."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import NamedTuple

from mmjax.components import suggestion
from mmjax.data.wheels import Wheel
from mmjax.errors import ConfigError, DataError

# MIT; of OpenAI's notebooks for CLIP (Radford et al. 2021, arXiv:2103.00020) and of VTAB.
_WHEEL = Wheel(
    "clip-benchmark==1.6.2",
    "clip_benchmark-1.6.2-py2.py3-none-any.whl",
    "6fbfd39b454a036a628b7e227b3d4050015009afe418583f21f27886c74e4998",
)
_FOLDER = "clip_benchmark/datasets"
_CLASSES, _TEMPLATES = "en_classnames.json", "en_zeroshot_classification_templates.json"


class Prompts(NamedTuple):
    """What a benchmark calls its classes, in their order, and texts with `{}` where a name goes.

    `classes` is empty where it takes the names of the data, with spaces for '_' and '/'.
    """

    classes: list[str]
    templates: list[str]


@functools.cache
def published(benchmark: str, data_dir: pathlib.Path) -> Prompts:
    """The prompts of a benchmark in the package clip-benchmark, which is fetched once.

    Args:
      benchmark: its name there, such as 'imagenet1k' (1,000 names and 80 templates) or 'cifar10'.
      data_dir: where prepared data lives; the package's files stay there.

    Raises:
      ConfigError: the package has no templates for it.
      DataError: the package cannot be had.
    """
    target = data_dir / "prompts" / f"clip_benchmark-{_WHEEL.sha256[:16]}"
    try:
        _WHEEL.unpack(_FOLDER, [_CLASSES, _TEMPLATES], target)
    except DataError as error:
        raise DataError(
            f"zero_shot.benchmark: no {_WHEEL.requirement} ({error}); or set classes and templates"
        ) from error
    classes, templates = (
        json.loads((target / file).read_text(encoding="utf-8")) for file in (_CLASSES, _TEMPLATES)
    )
    if benchmark not in templates:
        raise ConfigError(
            f"zero_shot.benchmark: got '{benchmark}'{suggestion(benchmark, templates)}, expected one of: "
            f"{', '.join(sorted(templates))}"
        )
    texts = [text.replace("{c}", "{}") for text in templates[benchmark]]
    # Where it has two orders, TFDS has that of VTAB.
    names = classes.get(f"{benchmark}_vtab", classes.get(benchmark, []))
    return Prompts(list(names), texts)
