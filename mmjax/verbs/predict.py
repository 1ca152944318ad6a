"""predict: what a run's classifiers and regressors say of files, text or a data set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from mmjax.errors import ConfigError
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_run_flags(parser)
    parser.add_argument("--source", metavar="WHAT", help=common.SOURCE_HELP)
    parser.add_argument("--out", metavar="FILE", help="a new file ending in .jsonl, for --source")
    common.add_stream_flag(parser, "one item to predict, instead of --source; repeat for several streams")
    parser.add_argument("--top-k", type=int, default=5, help="classes per prediction (default: 5)")


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    common.refuse_overrides(overrides, "predict")
    streams = common.streams(flags)
    if bool(streams) == bool(flags.source):
        raise ConfigError("predict: give either --source with --out, or one item as --input STREAM=VALUE")
    if flags.source and not flags.out:
        raise ConfigError("predict: --source needs --out=FILE.jsonl")
    from mmjax.inference.files import predict_to_file
    from mmjax.inference.run import load

    model = load(flags.workdir, flags.step)
    if flags.source:
        count = predict_to_file(model, flags.source, flags.out, flags.top_k)
        print(f"{count} items predicted in {flags.out}")
        return
    for head, rows in model.predict(top_k=flags.top_k, **streams).items():
        print(f"{head}: {json.dumps(rows[0], ensure_ascii=False)}")
