"""Parts of documentation pages that scripts write."""

from __future__ import annotations

import pathlib

DOCS = pathlib.Path(__file__).parents[1] / "docs"
_END = "<!-- End. -->"


def replace_part(page: pathlib.Path, script: str, text: str) -> None:
    """Puts `text` where `page` says '<!-- Written by SCRIPT; do not edit. -->', up to '<!-- End. -->'."""
    before, old, after = _parts(page, script)
    page.write_text(f"{before}{_begin(script)}\n\n{text.strip()}\n\n{_END}{after}", encoding="utf-8")


def read_part(page: pathlib.Path, script: str) -> str:
    """What stands there."""
    return _parts(page, script)[1]


def _begin(script):
    return f"<!-- Written by {script}; do not edit. -->"


def _parts(page, script):
    before, begin, rest = page.read_text(encoding="utf-8").partition(_begin(script))
    part, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{page}: has no part '{_begin(script)}' that ends with '{_END}'")
    return before, part.strip(), after
