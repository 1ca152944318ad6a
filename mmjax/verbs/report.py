"""report: writes the report of a run anew, finished or not."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from mmjax.reports import write_report
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_workdir_flag(parser, "the run's directory", required=True)


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    common.refuse_overrides(overrides, "report")
    print(write_report(pathlib.Path(flags.workdir)))
