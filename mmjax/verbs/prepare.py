"""prepare: the data sets and tokenizers of a config, and what its evaluators need besides."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from mmjax.data import loading
from mmjax.verbs import common


def add_flags(parser: argparse.ArgumentParser) -> None:
    common.add_config_flag(parser)


def run(flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    from mmjax.evaluation.run import build_evaluators

    config = common.resolve(flags, overrides)
    for evaluator in build_evaluators(config).values():
        evaluator.prepare(loading.data_dir(config.data))
    loading.prepare(config.data)
    data = loading.load(config.data)
    print(f"prepared in {loading.data_dir(config.data)}")
    for name, source in data.eval.items():
        print(f"  {name:<12} {len(source):>8} examples  {source.name}  {source.fingerprint[:12]}")
    for name, tokenizer in data.tokenizers.items():
        print(f"  tokenizer {name}: {tokenizer.vocab_size} entries")
