"""report: writes the report of a run or a sweep anew, finished or not."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from mmjax import sweeps
from mmjax.files import write_json
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_workdir_flag(parser, "the directory of the run or the sweep", required=True)


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    common.refuse_overrides(overrides, "report")
    workdir = pathlib.Path(flags.workdir)
    if (workdir / sweeps.SETTINGS).is_file():
        from mmjax.sweeps.report import write_results
        from mmjax.sweeps.study import open_study

        _, written = write_results(open_study(workdir))
        print(*written, sep="\n")
        return
    print(make_report(workdir))


def make_report(workdir: pathlib.Path) -> pathlib.Path:
    """Writes `report.html`, with the attention of the fusion where the run has a checkpoint."""
    from mmjax.reports import write_report

    if (workdir / "checkpoints").is_dir():
        _save_attention(workdir)
    return write_report(workdir)


def _save_attention(workdir: pathlib.Path) -> None:
    from mmjax.inference.run import load
    from mmjax.reports.attention import attention_artifact

    model = load(workdir)
    data = next(iter(model.config["data"]["eval"]), "train")
    batch = model.first_batch(data)
    artifact = attention_artifact(model.config, model.model, model.variables, batch, model.tokenizers)
    if artifact is not None:
        write_json(workdir / "artifacts" / "attention.json", artifact)
