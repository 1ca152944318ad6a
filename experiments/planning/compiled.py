"""What tables of compiled plans have in common: compile the rows that are missing, write those there are."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from experiments import pages
from mmjax.files import write_json
from mmjax.planning import topology

Row = TypeVar("Row")


def main(
    description: str,
    *,
    script: str,
    page: pathlib.Path,
    plans: pathlib.Path,
    rows: Mapping[str, Row],
    chips: Iterable[str],
    compiled: Callable[[Row], dict[str, Any]],
    text: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """The command of such a table.

    Args:
      description: of the command.
      script: its name, as the page has it.
      page: a file of docs/.
      plans: a JSON file of the plans that are made, by key; it is written after each.
      rows: by key, in the order in which they are compiled.
      chips: the topologies that they use.
      compiled: makes the plan of a row.
      text: the part of the page, from the plans by key.
      draw: writes the page's picture, from the plans by key.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{page.name}")
    parser.add_argument("--only-write", action="store_true", help="as --write, and compile nothing")
    flags = parser.parse_args()
    made = json.loads(plans.read_text(encoding="utf-8")) if plans.is_file() else {}
    if not flags.only_write:
        topology.prepare_process([topology.parse(name) for name in chips])
        for key, row in rows.items():
            if key not in made:
                made[key] = compiled(row)
                write_json(plans, made)
    print(text(made))
    if flags.write or flags.only_write:
        pages.replace_part(page, script, text(made))
        if draw is not None:
            draw(made)
