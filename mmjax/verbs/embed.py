"""embed: the embeddings of a data set, a folder or a manifest, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_run_flags(parser)
    parser.add_argument("--source", required=True, metavar="WHAT", help=common.SOURCE_HELP)
    parser.add_argument("--out", required=True, metavar="FILE", help="a new file ending in .parquet or .npy")
    parser.add_argument("--head", metavar="NAME", help="the projection head to write (default: all)")


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    common.refuse_overrides(overrides, "embed")
    from mmjax.inference.files import embed_to_file
    from mmjax.inference.run import load

    count = embed_to_file(load(flags.workdir, flags.step), flags.source, flags.out, flags.head)
    print(f"{count} items embedded in {flags.out}")
