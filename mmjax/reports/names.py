"""What the name of a metric says: its group, its baseline, its own name, what is better.

Names are `<group>/<tail>`, such as `retrieval/text_to_image/R@10`; a control that a number is to be
compared with has the same name with `baseline/<kind>` put in front of it (or after a prefix):
`baseline/chance/retrieval/text_to_image/R@10`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

# The one number of a group that a headline shows, the first of these it has.
_HEADLINES = ("accuracy", "R@10", "R@5", "R@1", "mAP", "auroc", "nmi", "bleu", "psnr", "f1_macro")
_LOWER_IS_BETTER = ("rank", "loss", "error", "ece", "brier", "mse", "mae", "rmse", "perplexity", "distance")


@dataclasses.dataclass(frozen=True)
class Name:
    """A metric's name in parts.

    Attributes:
      group: what was measured, `retrieval/text_to_image`.
      tail: which number of it, `R@10`.
      baseline: the kind of control it belongs to; empty for the model's own number.
    """

    group: str
    tail: str
    baseline: str = ""


def parse(name: str) -> Name:
    """The parts of a metric's name."""
    parts = name.split("/")
    baseline = ""
    if "baseline" in parts[:-2]:
        at = parts.index("baseline")
        baseline = parts[at + 1]
        parts = parts[:at] + parts[at + 2 :]
    return Name("/".join(parts[:-1]), parts[-1], baseline)


def readable(text: str) -> str:
    """`text_to_image` as `text → image`; other underscores as spaces, slashes as dots."""
    return text.replace("_to_", " → ").replace("_", " ").replace("/", " · ")


def natural(name: str) -> list[tuple[int, str]]:
    """A key to sort names by, in which R@5 comes before R@10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def lower_is_better(tail: str) -> bool:
    """Whether the smaller of two values of this number is the better one."""
    words = tail.lower().replace("-", "_").split("_")
    return "reciprocal" not in words and any(word in _LOWER_IS_BETTER for word in words)


def bounds(tails: Iterable[str]) -> dict[str, tuple[str, str]]:
    """`{'accuracy': ('accuracy_low', 'accuracy_high')}` for the numbers that have both bounds beside them."""
    known = set(tails)
    found = {tail: (f"{tail}_low", f"{tail}_high") for tail in known}
    return {tail: pair for tail, pair in found.items() if known.issuperset(pair)}


def headlines(names: Iterable[str], best_metric: str | None, limit: int) -> list[str]:
    """The names worth a place at the top: `best_metric`, then one of each group, in order."""
    tails: dict[str, dict[str, str]] = {}
    for name in names:
        parsed = parse(name)
        if not parsed.baseline and parsed.group.split("/")[0] != "train":
            tails.setdefault(parsed.group, {})[parsed.tail] = name
    chosen = [n for group in tails.values() for n in group.values() if n == best_metric]
    for group in tails.values():
        own = next((group[tail] for tail in _HEADLINES if tail in group), None)
        if own is not None and not any(name in chosen for name in group.values()):
            chosen.append(own)
    return chosen[:limit]
