"""Plans as text: one in full, several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GIB = 2**30
_NAMES = {
    "parameters": "parameters",
    "optimizer_state": "optimizer state",
    "moving_average": "moving average",
    "model_state": "model state",
    "batch": "batch",
    "temporaries": "temporaries",
}


def one(plan: Mapping[str, Any]) -> str:
    """A plan in full."""
    lines = [
        f"{plan['config']} on {plan['topology']}: {plan['chips']} chips, mesh {_mesh(plan)}",
        f"batch {plan['batch_size']:,} ({plan['batch_per_chip']:g} a chip), {_settings(plan)}; "
        f"{plan['parameters'] / 1e6:,.1f} M parameters",
        "",
        *_memory(plan),
        *_arithmetic(plan),
        *_exchanges(plan),
        *_time(plan),
        *_search(plan),
    ]
    if plan["replicated"]:
        arrays = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in plan["replicated"][:3])
        lines.append(f"whole on every chip: {arrays}")
    if plan["compile_seconds"] is not None:
        lines.append(f"compiled in {plan['compile_seconds']:.0f} s")
    lines += [f"note: {note}" for note in plan["notes"]]
    return "\n".join(lines)


def several(plans: Sequence[Mapping[str, Any]]) -> str:
    """A line per plan; settings that are the same in all stand above them."""
    columns = {
        "config": lambda p: p["config"],
        "chips": lambda p: p["topology"],
        "mesh": _mesh,
        "batch": lambda p: f"{p['batch_size']:,}",
        "changed": lambda p: " ".join(f"{key}={value}" for key, value in p["overrides"].items()) or "-",
    }
    rows = [{name: str(read(plan)) for name, read in columns.items()} for plan in plans]
    shared = [name for name in columns if len({row[name] for row in rows}) == 1]
    above = [f"{name} {rows[0][name]}" for name in shared if rows[0][name] != "-"]
    for plan, row in zip(plans, rows, strict=True):
        for name in shared:
            del row[name]
        row.update(_numbers(plan))
    head = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in head]
    lines = [head, ["-" * width for width in widths], *([row[name] for name in head] for row in rows)]
    table = [" | ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines]
    notes = list(dict.fromkeys(note for plan in plans for note in plan["notes"]))
    return "\n".join([", ".join(above), "", *table, "", *(f"note: {note}" for note in notes)]).strip()


def _numbers(plan) -> dict[str, str]:
    roofline = plan["roofline"] or {}
    sent = sum(sum(axes.values()) for axes in (plan["collective_bytes"] or {}).values())
    seconds = plan["estimated_seconds"]
    return {
        "fits": {True: "yes", False: "no", None: "?"}[plan["fits"]],
        "GiB a chip": _gib(plan["needed_bytes"]),
        "temporaries": _gib(plan["temp_bytes"]),
        "sent GiB": "?" if plan["collective_bytes"] is None else f"{sent / GIB:.2f}",
        "estimated ms": "?" if seconds is None else f"{seconds * 1e3:.1f}",
        "examples/s": "?" if seconds is None else f"{plan['batch_size'] / seconds:,.0f}",
        "least ms": f"{roofline['step_seconds'] * 1e3:.1f}" if roofline else "?",
        "bound": roofline.get("bound", "?"),
        "MFU at most": f"{roofline['mfu']:.0%}" if roofline else "?",
        "largest batch": "-" if plan["largest_batch"] is None else f"{plan['largest_batch']['batch_size']:,}",
    }


def _gib(size: float | None) -> str:
    return "?" if size is None else f"{size / GIB:.2f}"


def _mesh(plan) -> str:
    return " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1) or "of one chip"


def _settings(plan) -> str:
    parts = [plan["dtype"], "remat" if plan["remat"] else "no remat"]
    parts += ["scan"] if plan["scan"] else []
    if plan["accumulate_steps"] > 1:
        parts.append(f"{plan['accumulate_steps']} microbatches")
    return ", ".join(parts)


def _memory(plan) -> list[str]:
    needed, available = plan["needed_bytes"], plan["available_bytes"]
    of = "" if available is None else f" of {available / GIB:.2f}"
    if plan["fits"] is False:
        need = "more" if needed is None else f"{needed / GIB:.2f} GiB"
        lines = [f"does not fit: a chip needs {need}{of and of + ' GiB'}", f"  {plan['reason']}"]
    elif plan["fits"] is None:
        lines = [
            f"whether it fits is not known; arguments take {_gib(plan['argument_bytes'])}{of} GiB a chip"
        ]
    else:
        lines = [f"fits: {needed / GIB:.2f}{of} GiB a chip"]
        if available is None:
            lines[0] += " (the memory of a CPU is not looked at)"
    for kind, name in _NAMES.items():
        if size := plan["memory"].get(kind):
            lines.append(f"  {name:<16}{size / GIB:>10.3f} GiB")
    if plan["host_bytes"]:
        lines.append(f"  in the host's memory for each chip: {plan['host_bytes'] / GIB:.3f} GiB")
    return lines


def _arithmetic(plan) -> list[str]:
    model = plan["model_flops"]
    if plan["flops"] is None:
        return [f"arithmetic of a step: {model / 1e12:,.2f} TFLOP, three times the forward pass"]
    return [
        f"arithmetic of a step: {plan['flops'] / 1e12:,.2f} TFLOP compiled, {plan['flops'] / model:.2f} x "
        f"the model's {model / 1e12:,.2f} (three times the forward pass)"
    ]


def _exchanges(plan) -> list[str]:
    if plan["collectives"] is None:
        return []
    if not plan["collectives"]:
        return ["chips exchange nothing"]
    lines = ["sent by each chip in a step:"]
    for item in plan["collectives"]:
        if item["sent_bytes"] >= 1e-3 * plan["collectives"][0]["sent_bytes"]:
            lines.append(
                f"  {item['kind']:<20}along {item['axes']:<14}{item['sent_bytes'] / 2**20:>12,.2f} MiB "
                f"in {item['count']:,}"
            )
    return lines


def _time(plan) -> list[str]:
    roofline = plan["roofline"]
    if roofline is None:
        return []
    seconds = roofline["seconds"]
    known = [name for name in ("compute", "memory", "links") if seconds[name] is not None]
    parts = [f"{name} {seconds[name] * 1e3:,.2f} ms" for name in known]
    lines = [
        f"a step takes at least: {', '.join(parts)}",
        f"  so it is bound by {roofline['bound']}, and MFU is at most {roofline['mfu']:.1%}",
    ]
    if (estimate := plan["estimated_seconds"]) is not None:
        links = seconds["links"]
        lines += [
            f"a step is estimated at: {estimate * 1e3:,.2f} ms, {(estimate - links) * 1e3:,.2f} of "
            f"instructions and {links * 1e3:,.2f} of exchanges, none of them hidden",
            f"  so {plan['batch_size'] / estimate:,.0f} examples/s, MFU {mfu(plan):.1%}",
        ]
    return lines


def mfu(plan: Mapping[str, Any]) -> float:
    """Of the estimated step: the model's arithmetic, as a part of what the chips could do in that time."""
    roofline = plan["roofline"]
    return roofline["mfu"] * roofline["step_seconds"] / plan["estimated_seconds"]


def _search(plan) -> list[str]:
    lines = []
    if plan["largest_batch"] is not None:
        found = plan["largest_batch"]
        lines.append(
            f"largest batch that fits: {found['batch_size']:,} ({found['batch_per_chip']:g} a chip), "
            f"found in {found['compilations']} compilations"
        )
    if plan["nearest"] is not None:
        lines.append("what fits instead:" if plan["nearest"] else "nothing near it fits")
        for item in plan["nearest"]:
            changes = " ".join(f"--config.{key}={value}" for key, value in item["changes"].items())
            lines.append(f"  {changes}  ({item['needed_bytes'] / GIB:.2f} GiB a chip)")
    return lines
