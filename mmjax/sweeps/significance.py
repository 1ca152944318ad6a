"""Whether one setting is better than another, from repeats over seeds and folds.

Repeats are paired: both settings have a run with the same seed and fold, so what these bring (the
order of the data, the part that was held out) cancels in the difference.

- Over seeds: the paired t-test. Differences of runs with independent seeds are independent, and with
  three to ten of them a rank test can hardly reach 5% (Wilcoxon's needs six).
- Over folds: the corrected resampled t-test (Nadeau and Bengio 2003, Inference for the Generalization
  Error, Machine Learning 52:239-281, section 4). The training parts of folds overlap, so differences are
  not independent, and the plain test finds differences that are not there. The variance of the mean is
  taken as (1/n + n_test/n_train) times that of the differences, with n_test/n_train = 1/(K - 1). Several
  seeds of one fold are averaged first: they repeat the fold and do not draw a new one.

Several comparisons with the best are corrected by Holm's method (1979). The best is chosen by the
same numbers, which no correction here makes up for.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from scipy import stats

# (seed, fold) of a run, None for what is not swept.
Repeat: TypeAlias = tuple[int | None, int | None]

_ROUNDING = 1e-9  # of the largest value

PAIRED, CORRECTED = "paired t-test", "corrected resampled t-test"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference of two settings.

    Attributes:
      difference: mean of the paired differences.
      pairs: how many: seeds, or folds.
      p: two-sided; None where there are fewer than two pairs, they do not differ among themselves,
        or one is not finite.
      test: its name.
    """

    difference: float
    pairs: int
    p: float | None
    test: str


def compare(
    one: Mapping[Repeat, float], other: Mapping[Repeat, float], folds: int | None
) -> Comparison | None:
    """Compares two settings over the repeats that both have; None where they have none in common.

    Args:
      one, other: a value for each repeat.
      folds: K where repeats have folds.
    """
    common = sorted(set(one) & set(other), key=str)
    differences = [one[repeat] - other[repeat] for repeat in common]
    if folds is not None:
        by_fold: dict[int | None, list[float]] = {}
        for (_, fold), difference in zip(common, differences, strict=True):
            by_fold.setdefault(fold, []).append(difference)
        differences = [statistics.mean(values) for values in by_fold.values()]
    if not differences:
        return None
    count, mean = len(differences), statistics.mean(differences)
    test = PAIRED if folds is None else CORRECTED
    largest = max(abs(values[repeat]) for values in (one, other) for repeat in common)
    spread = max(differences) - min(differences)
    # Differences that are equal but for rounding are equal; infinite ones have no variance.
    if count < 2 or not math.isfinite(spread) or spread <= _ROUNDING * largest:
        return Comparison(mean, count, None, test)
    variance = statistics.variance(differences)
    share = 1 / count if folds is None else 1 / count + 1 / (folds - 1)
    t = mean / math.sqrt(share * variance)
    return Comparison(mean, count, float(2 * stats.t.sf(abs(t), count - 1)), test)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number, in the same order; None stays."""
    order = sorted((i for i, p in enumerate(values) if p is not None), key=lambda i: values[i])
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[i]))
        corrected[i] = highest
    return corrected
