"""`sweep.html`: the ranking of a study, what mattered, and the curves of all trials, on one page."""

from __future__ import annotations

import collections
import json
import pathlib
import shlex
import warnings
from collections.abc import Sequence

import optuna

from mmjax.files import write_text
from mmjax.reports.format import duration, number
from mmjax.reports.html import Markup, element, join, page
from mmjax.reports.style import CSS
from mmjax.reports.summary import section
from mmjax.sweeps import algorithms, pictures, points, results, significance, space
from mmjax.sweeps.results import FAILED, FINISHED, PRUNED, RUNNING, WAITING, Row, Setting
from mmjax.sweeps.study import Study

FILE_NAME = "sweep.html"
_LEAST_FOR_IMPORTANCE = 5
_MOST_LINES = 30  # a longer table scrolls


def write_results(study: Study) -> tuple[list[Setting], list[pathlib.Path]]:
    """Writes everything that a study has found so far: the page, the tables and the best config.

    Returns:
      (the settings, the best first; the files written).
    """
    rows = results.collect(study)
    ranked = results.rank(rows, study.settings)
    page_file = study.directory / FILE_NAME
    write_text(page_file, make_page(study, rows, ranked))
    return ranked, [page_file, *results.write_tables(study, rows, ranked)]


def make_page(study: Study, rows: Sequence[Row], ranked: Sequence[Setting]) -> str:
    """The page as text."""
    body = [
        _headline(study, rows, ranked),
        section("Ranking", *_ranking(study, ranked)),
        section("Importance", *_importance(study, rows)),
        section("Settings and values", _parallel(study, rows)),
        section("Curves", _curves(study, rows, ranked)),
        section("Trials", _trials(study, rows)),
        section("Failed trials", _failures(rows)),
        section("What was tried", _settings(study)),
    ]
    return page(study.directory.resolve().name, CSS + pictures.CSS, element("main", *body))


def _headline(study, rows, ranked):
    counts = collections.Counter(row.state for row in rows)
    left = counts[WAITING] + counts[RUNNING]
    status = (
        element("span", f"in progress · {len(rows) - left} of {len(rows)}", class_="badge")
        if left
        else element("span", "finished", class_="badge done")
    )
    settings, tiles = study.settings, []
    best = ranked[0] if ranked[0].mean is not None else None
    if best is not None:
        of = f"trial {best.rows[0].number}"
        if best.std is not None:
            of = f"± {number(best.std)} (std of {len(best.values())} runs)"
        tiles.append(_tile(f"best {settings.metric.rpartition('/')[2]}", number(best.mean), of))
    for state in (FINISHED, PRUNED, FAILED, RUNNING, WAITING):
        if counts[state]:
            tiles.append(_tile(state, str(counts[state]), "trials"))
    seconds = sum(row.seconds or 0.0 for row in rows)
    again = sum(max(row.attempts - 1, 0) for row in rows)
    facts = {
        "metric": f"{settings.metric} ({settings.direction})",
        "wall time of all trials": duration(seconds),
        "workers that died": str(again) if again else "",
        "best": points.label(best.point) if best is not None else "",
        "as a config": "best.json, beside this page" if best is not None else "",
        "as a command": _command(study, best.point) if best is not None else "",
    }
    shown = [join((element("dt", key), element("dd", value))) for key, value in facts.items() if value]
    return element(
        "header",
        element("h1", study.directory.resolve().name, " ", status),
        element("div", *tiles, class_="tiles"),
        element("dl", *shown, class_="facts"),
    )


def _tile(what, value, below):
    return element(
        "div",
        element("span", what, class_="what"),
        element("b", value),
        element("span", below, class_="tail"),
        class_="tile",
    )


def _command(study, point):
    settings = study.settings
    flags = [f"--config.{key}={text}" for key, text in (settings.overrides | points.texts(point)).items()]
    return shlex.join(["./launch.sh", "train", f"--config={settings.reference}", *flags])


def _ranking(study, ranked):
    keys = list(dict.fromkeys(key for setting in ranked for key in setting.point))
    repeated = any(len(setting.rows) > 1 for setting in ranked)
    head = ["", *points.short_names(keys), study.settings.metric.rpartition("/")[2]]
    head += ["std", "runs", "worse than the best by", "p (Holm)"] if repeated else ["state", "step", "trial"]
    lines = []
    for position, setting in enumerate(ranked):
        if not repeated and setting.rows[0].value is None:
            continue
        value = setting.mean if repeated else setting.rows[0].value
        cells = [str(position + 1), *(_shown(setting.point.get(key)) for key in keys), _number(value)]
        if repeated:
            done, against = len(setting.values()), setting.against_best
            cells += [_number(setting.std), f"{done} of {len(setting.rows)}"]
            sign = 1 if study.settings.direction == "max" else -1
            cells += [_number(sign * against.difference), _p(against)] if against else ["", ""]
        else:
            row = setting.rows[0]
            cells += [row.state, str(row.step), str(row.number)]
        lines.append(cells)
    yield _table(head, lines)
    tests = {
        setting.against_best.test: setting.against_best.pairs for setting in ranked if setting.against_best
    }
    for test, pairs in tests.items():
        over = "folds" if test == significance.CORRECTED else "seeds"
        yield element(
            "p",
            f"Mean and standard deviation (of the sample) over the repeats. p: two-sided {test} against "
            f"the best row over {pairs} {over}, corrected for the number of rows by Holm's method. The best "
            "row was chosen by these same numbers.",
            class_="note",
        )


def _importance(study, rows):
    shares, why = importance(study, rows)
    if shares is None:
        return [element("p", why, class_="note")]
    note = (
        "Share of the metric's variance over the finished trials that each key explains (fANOVA, Hutter et "
        "al. 2014)."
    )
    return [pictures.importance(shares), element("p", note, class_="note")]


def importance(study: Study, rows: Sequence[Row]) -> tuple[dict[str, float] | None, str]:
    """Key -> share of the metric's variance that it explains, or None and why there is none."""
    done = [row for row in rows if row.state == FINISHED]
    varied = {
        key: list({json.dumps(row.point.get(key), sort_keys=True) for row in done})
        for key in dict.fromkeys(key for row in done for key in row.point)
    }
    varied = {key: texts for key, texts in varied.items() if len(texts) > 1}
    if len(done) < _LEAST_FOR_IMPORTANCE or not varied:
        return None, f"{len(done)} trials have finished; {_LEAST_FOR_IMPORTANCE} that differ are needed."
    if len({row.value for row in done}) == 1:
        return None, "All trials have one value."
    declared = space.from_json(study.settings.space)
    distributions, readers = {}, {}
    for key, texts in varied.items():
        if isinstance(declared.get(key), space.Range):
            distributions[key] = algorithms.distribution(declared[key])
            readers[key] = lambda value: value
        else:
            distributions[key] = optuna.distributions.CategoricalDistribution(sorted(texts))
            readers[key] = lambda value: json.dumps(value, sort_keys=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = optuna.create_study()
        for row in done:
            params = {key: readers[key](row.point.get(key)) for key in varied}
            copy.add_trial(optuna.create_trial(params=params, distributions=distributions, value=row.value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(copy, evaluator=evaluator)), ""


def _parallel(study, rows):
    done = [row for row in rows if row.state == FINISHED and row.point]
    if not done:
        return None
    return pictures.parallel(
        [row.point for row in done], [row.value for row in done], _best(study, done), study.settings.metric
    )


def _curves(study, rows, ranked):
    drawn = [row for row in rows if row.curve]
    done = [row for row in drawn if row.state == FINISHED]
    best = drawn.index(done[_best(study, done)]) if done else None
    series = [(row.curve, row.state == PRUNED) for row in drawn]
    return pictures.curves(series, best, study.settings.metric)


def _best(study, done: Sequence[Row]) -> int:
    pick = max if study.settings.direction == "max" else min
    return pick(range(len(done)), key=lambda i: done[i].value)


def _trials(study, rows):
    head = ["trial", "state", study.settings.metric, "step", "time", "attempts", "what"]
    lines = [
        [
            str(row.number),
            row.state,
            _number(row.value),
            str(row.step or ""),
            duration(row.seconds) if row.seconds else "",
            str(row.attempts or ""),
            points.label(row.point) if row.point else "",
        ]
        for row in rows
    ]
    return element("details", element("summary", f"All {len(rows)} trials"), _table(head, lines))


def _failures(rows):
    failed = [row for row in rows if row.error]
    items = [element("li", f"trial {row.number} ({points.label(row.point)}): {row.error}") for row in failed]
    return element("ul", *items) if items else None


def _settings(study):
    settings = study.settings
    shown = {
        "config": settings.reference,
        "overrides": settings.overrides,
        "sweep": settings.sweep,
        "search": settings.search,
        "search_seed": settings.search_seed,
        "space": settings.space,
        "pruner": settings.pruner,
        "folds": settings.folds,
        "fold_group": settings.fold_group,
        "storage": settings.storage,
        "retries": settings.retries,
    }
    text = json.dumps(shown, indent=2, ensure_ascii=False)
    return element("details", element("summary", "The settings of the sweep"), element("pre", text))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Markup:
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *[element("th", text, scope="col") for text in head])),
            element("tbody", *[element("tr", *[element("td", cell) for cell in line]) for line in lines]),
            class_="numbers unbroken",
        ),
        class_="scroll tall" if len(lines) > _MOST_LINES else "scroll",
    )


def _p(comparison: significance.Comparison) -> str:
    return "–" if comparison.p is None else f"{comparison.p:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _shown(value) -> str:
    return "" if value is None else points.shown(value)
