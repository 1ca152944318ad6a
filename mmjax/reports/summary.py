"""The sections of numbers: the headline, the table of metrics, the curves, the data, the config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmjax.reports import charts, names
from mmjax.reports.files import RunFiles
from mmjax.reports.format import duration, number, plain
from mmjax.reports.html import Markup, element, join

_TILES = 6
_COORDINATES = ("step", "examples", "seconds")  # of a line of metrics.jsonl; the rest are metrics


def section(title: str, *content: object) -> Markup | None:
    """A titled part of the page; None when it has no content."""
    body = [part for part in content if part is not None and part != ""]
    return element("section", element("h2", title), *body) if body else None


def headline(run: RunFiles) -> Markup:
    """The run's name, whether it is done, its main numbers beside their baselines, and its facts."""
    metrics = latest_metrics(run)
    steps = run.result.get("steps", _last(run, "step"))
    total = run.config.get("total_steps")
    if run.result:
        status = element("span", "finished", class_="badge done")
    else:
        progress = f" · {steps / total:.0%}" if steps and total else ""
        status = element("span", f"in progress{progress}", class_="badge")
    best = run.config.get("checkpoint", {}).get("best_metric")
    tiles = [_tile(name, metrics) for name in names.headlines(metrics, best, _TILES)]
    return element(
        "header",
        element("h1", run.workdir.resolve().name, " ", status),
        element("div", *tiles, class_="tiles") if tiles else None,
        _facts(run, steps, total),
    )


def latest_metrics(run: RunFiles) -> dict[str, float]:
    """The final metrics; those last logged, as long as the run is in progress."""
    if run.result.get("metrics"):
        found = run.result["metrics"]
    else:
        found = {name: value for line in run.history for name, value in line.items()}
    return {
        name: found[name]
        for name in sorted(found, key=names.natural)
        if isinstance(found[name], int | float) and name not in _COORDINATES
    }


def _last(run, key):
    return next((line[key] for line in reversed(run.history) if key in line), None)


def _tile(name, metrics):
    own = names.parse(name)
    controls = []
    for other, value in metrics.items():
        parsed = names.parse(other)
        if parsed.baseline and (parsed.group, parsed.tail) == (own.group, own.tail):
            controls.append(
                join((element("span", names.readable(parsed.baseline)), element("span", number(value))))
            )
    return element(
        "div",
        element("span", names.readable(own.group), class_="what"),
        element("b", number(metrics[name])),
        element("span", own.tail.replace("_", " "), class_="tail"),
        *[element("span", control, class_="control") for control in controls],
        class_="tile",
    )


def _facts(run, steps, total):
    result = run.result
    seconds = result.get("wall_seconds", _last(run, "seconds"))
    rate = result.get("examples_per_second", _last(run, "train/examples_per_second"))
    parameters = result.get("parameters")
    facts = {
        "steps": None if steps is None else number(steps) + (f" of {number(total)}" if total else ""),
        "examples per second": None if rate is None else number(round(float(rate), 1)),
        "wall time": None if seconds is None else duration(seconds),
        "parameters": None if parameters is None else plain(parameters),
        "devices": plain(result.get("devices", "")),
        "versions": plain(result.get("versions", "")),
        "git revision": plain(result.get("git_revision") or ""),
    }
    rows = [join((element("dt", key), element("dd", value))) for key, value in facts.items() if value]
    return element("dl", *rows, class_="facts") if rows else None


def metric_tables(run: RunFiles) -> Markup | None:
    """One table per group of metrics: a row for the run, a row for each baseline."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in latest_metrics(run).items():
        parsed = names.parse(name)
        if parsed.group.split("/")[0] != "train":
            groups.setdefault(parsed.group, {}).setdefault(parsed.baseline, {})[parsed.tail] = value
    tables = [_table(group, rows) for group, rows in groups.items()]
    return section("Metrics", element("div", *tables, class_="tables") if tables else None)


def _table(group, rows):
    bounds = names.bounds(rows.get("", {}))
    hidden = {bound for pair in bounds.values() for bound in pair}
    tails = [tail for tail in dict.fromkeys(t for row in rows.values() for t in row) if tail not in hidden]
    best = {}
    for tail in tails if len(rows) > 1 else ():
        pick = min if names.lower_is_better(tail) else max
        best[tail] = pick(row[tail] for row in rows.values() if tail in row)
    body = []
    for baseline in sorted(rows, key=bool):
        row = rows[baseline]
        label = f"baseline: {names.readable(baseline)}" if baseline else "this run"
        cells = [_cell(row, tail, bounds.get(tail), best.get(tail)) for tail in tails]
        body.append(element("tr", element("th", label, scope="row"), *cells))
    head = element("tr", element("th", ""), *[element("th", t.replace("_", " "), scope="col") for t in tails])
    return element(
        "div",
        element(
            "table",
            element("caption", names.readable(group) or "other"),
            element("thead", head),
            element("tbody", *body),
            class_="numbers unbroken",
        ),
        class_="scroll",
    )


def _cell(row, tail, bounds, best):
    if tail not in row:
        return element("td")
    shown = number(row[tail])
    interval = None
    if bounds and row.keys() >= set(bounds):
        low, high = (number(row[bound]) for bound in bounds)
        interval = element("span", f" {low} to {high}", class_="note")
    return element("td", element("b", shown) if row[tail] == best else shown, interval)


def curves(run: RunFiles) -> Markup | None:
    """Losses, evaluation metrics and the learning rate over steps; the rest folded away."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for line in run.history:
        for name, value in line.items():
            if name not in _COORDINATES and isinstance(value, int | float) and "step" in line:
                xs, ys = columns.setdefault(name, ([], []))
                xs.append(line["step"])
                ys.append(value)
    main: dict[str, list[str]] = {"loss": [], "learning rate": []}  # these come first
    more: dict[str, list[str]] = {}
    hidden = {bound for pair in names.bounds(columns).values() for bound in pair}
    for name in sorted(columns, key=lambda name: (name.count("/"), names.natural(name))):
        parsed = names.parse(name)
        if parsed.baseline or name in hidden:
            continue
        if parsed.tail == "loss":
            place = "loss" if parsed.group.split("/")[0] == "train" else f"{parsed.group} loss"
            main.setdefault(place, []).append(name)
        elif parsed.tail == "learning_rate":
            main.setdefault("learning rate", []).append(name)
        elif parsed.group.split("/")[0] == "train":
            more.setdefault(names.readable(parsed.tail), []).append(name)
        else:
            # Shares, and numbers where less is better, are of different sizes.
            unit = f" · {names.readable(parsed.tail)}" if names.lower_is_better(parsed.tail) else ""
            main.setdefault(names.readable(parsed.group) + unit, []).append(name)
    shown, folded = (_charts(groups, columns) for groups in (main, more))
    return section(
        "Curves",
        element("div", *shown, class_="cards") if shown else None,
        element(
            "details", element("summary", "More of the training"), element("div", *folded, class_="cards")
        )
        if folded
        else None,
    )


def _charts(groups, columns):
    drawn = []
    for title, members in groups.items():
        log = title == "loss" or "norm" in title
        for start in range(0, len(members), charts.COLOURS):
            lines = [
                charts.Series(_line_label(name), *columns[name])
                for name in members[start : start + charts.COLOURS]
            ]
            values = [y for line in lines for y in line.ys if y > 0]
            wide = bool(values) and max(values) > 20 * min(values)
            drawn.append(charts.line_chart(title, lines, "step", log=log and wide))
    return [chart for chart in drawn if chart is not None]


def _line_label(name):
    """What tells a line from its neighbours: the objective of a loss, else the metric's own name."""
    parts = name.split("/")
    if parts[0] == "train":
        middle = "/".join(parts[1:-1])
        return middle.replace("_", " ") or ("total" if parts[-1] == "loss" else parts[-1].replace("_", " "))
    return parts[-1].replace("_", " ")


def data_section(run: RunFiles) -> Markup | None:
    """The data sets with their sizes and fingerprints, and the classes of each label."""
    fingerprints, examples = (_mapping(run.data.get(key)) for key in ("fingerprints", "examples"))
    rows = []
    for name in fingerprints | examples:
        cells = (plain(examples.get(name, "")), plain(fingerprints.get(name, ""))[:16])
        rows.append(
            element("tr", element("th", name, scope="row"), *[element("td", shown) for shown in cells])
        )
    head = [element("th", name, scope="col") for name in ("data set", "examples", "fingerprint")]
    table = element(
        "table", element("thead", element("tr", *head)), element("tbody", *rows), class_="numbers"
    )
    labels = [
        element(
            "details", element("summary", f"{label}: {len(known)} classes"), element("p", ", ".join(known))
        )
        for label, known in _mapping(run.data.get("class_names")).items()
        if isinstance(known, list) and all(isinstance(name, str) for name in known)
    ]
    return section("Data", element("div", table, class_="scroll") if rows else None, *labels)


def _mapping(value):
    return value if isinstance(value, Mapping) else {}


def config_section(run: RunFiles) -> Markup | None:
    """The resolved config, folded."""
    if not run.config:
        return None
    text = json.dumps(run.config, indent=2, ensure_ascii=False)
    return section(
        "Config", element("details", element("summary", "The resolved config"), element("pre", text))
    )


def problems(notes: list[Any]) -> Markup | None:
    """What is there but could not be shown."""
    return section("Left out", element("ul", *[element("li", note) for note in notes])) if notes else None
