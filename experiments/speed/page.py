"""Puts what `./launch.sh bench` measured into docs/speed.md.

./launch.sh bench --out=runs/bench && cp runs/bench/bench.json experiments/speed/
python -m experiments.speed.page
"""

from __future__ import annotations

import json
import pathlib

from experiments import pages
from mmjax.bench import page

PAGE, SCRIPT = pages.DOCS / "speed.md", "experiments.speed.page"
MEASURED = pathlib.Path(__file__).parent / "bench.json"


def text() -> str:
    """The part of the page, from what is committed."""
    return page.render(json.loads(MEASURED.read_text(encoding="utf-8"))).strip()


if __name__ == "__main__":
    pages.replace_part(PAGE, SCRIPT, text())
