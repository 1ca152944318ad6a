"""search: ranks a folder, manifest or data set by a text or an image, and shows it in a picture."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping

from mmjax.errors import ConfigError
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_run_flags(parser)
    parser.add_argument("--source", required=True, metavar="WHAT", help=common.SOURCE_HELP)
    common.add_stream_flag(parser, "what to look for, such as text='a red apple' or image=photo.png")
    parser.add_argument("--find", metavar="STREAM", help="the stream that the items are compared by")
    parser.add_argument("--k", type=int, default=10, help="how many results (default: 10)")
    parser.add_argument(
        "--gallery",
        metavar="FILE",
        help="the picture of the query and what was found: a new file ending in .png, or .html for a page "
        "(default: WORKDIR/searches/QUERY-in-SOURCE.png, numbered where that is taken)",
    )


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    common.refuse_overrides(overrides, "search")
    query = common.streams(flags)
    if len(query) != 1:
        raise ConfigError(f"search: got {len(query)} queries, expected one: --input STREAM=VALUE")
    from mmjax.inference import files
    from mmjax.inference.run import load

    if flags.gallery:
        files.check_gallery(pathlib.Path(flags.gallery))
    model = load(flags.workdir, flags.step)
    hits = model.search(flags.source, k=flags.k, find=flags.find, **query)
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:>4}  {hit.score:+.4f}  {hit.title}")
    gallery = flags.gallery or files.default_gallery(model, pathlib.Path(flags.workdir), query, flags.source)
    files.write_gallery(model, query, hits, gallery, flags.source)
    print(f"gallery: {gallery}")
