"""convert: a run, or published weights, as a directory that Hugging Face transformers loads."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="DIR_OR_ID",
        help="the directory of a run or of published weights, or a model on the Hugging Face hub, owner/name",
    )
    parser.add_argument("--to", dest="target", required=True, metavar="DIR", help="a new directory")
    parser.add_argument("--stream", metavar="NAME", help="write the encoder of this stream alone")
    parser.add_argument(
        "--step",
        type=int,
        help="of a run, which checkpoint (default: the best where the run chose one, else the newest)",
    )


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    common.refuse_overrides(overrides, "convert")
    from mmjax.interop.convert import convert

    done = convert(flags.source, flags.target, stream=flags.stream, step=flags.step)
    print(f"{flags.target}: {done.architecture}, {done.parameters:,} parameters")
    print(f"written: {', '.join(done.files)}")
    print(f"left out: {'; '.join(done.left_out) or 'nothing'}")
