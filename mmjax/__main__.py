"""`python -m mmjax VERB`: the verbs, their flags, and the exit codes.

Exit codes: 0 done, 1 a check of --overfit-one-batch, runs of reproduce or a whole sweep that failed,
2 wrong config or usage, 3 unusable data, 4 non-finite loss, 5 another process of the run is gone, 75
preempted and saved (start again to go on); what else goes wrong is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import logging as standard_logging
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from absl import flags as absl_flags
from absl import logging

from mmjax import components, config
from mmjax.errors import ConfigError, LostProcess, MmjaxError, Preempted
from mmjax.parallel import processes

# name -> (module, what it does in one line). A module has `add_flags(parser)` and `run(flags, overrides)`.
VERBS = {
    "train": ("mmjax.verbs.train", "train a config, evaluate it, write the run's report"),
    "eval": ("mmjax.verbs.evaluate", "run a run's evaluators on one of its checkpoints"),
    "predict": ("mmjax.verbs.predict", "predictions of a run for files, text or a data set"),
    "embed": ("mmjax.verbs.embed", "embeddings of a run for a data set or folder, to Parquet or npy"),
    "search": ("mmjax.verbs.search", "rank a folder or data set by a text or an image"),
    "convert": ("mmjax.verbs.convert", "a run or published weights, written as transformers loads them"),
    "prepare": ("mmjax.verbs.prepare", "prepare the data sets and tokenizers of a config"),
    "plan": ("mmjax.verbs.plan", "whether a step fits chips that are not here, what it moves and takes"),
    "bench": ("mmjax.verbs.bench", "measured speed on this machine, beside PyTorch"),
    "sweep": ("mmjax.verbs.sweep", "many runs of a config: listed settings, or a search"),
    "reproduce": ("mmjax.verbs.reproduce", "the runs of an experiment, and its table"),
    "report": ("mmjax.verbs.report", "write the report of a run or a sweep anew"),
}

_SHELL_VERBS = {  # done by launch.sh itself
    "setup": "install the environment and stop",
    "test": "run the tests (arguments go to pytest)",
    "lint": "check style",
}


def usage() -> str:
    """The text of `help`."""
    lines = [
        "usage: ./launch.sh VERB [--config=FILE[:args]] [--config.any.key=value] [--workdir=DIR] ...",
        "       ./launch.sh --on=slurm|tpu ... VERB ...   elsewhere, see ./launch.sh --on=slurm --help",
        "",
    ]
    listed = {name: text for name, (_, text) in VERBS.items()} | _SHELL_VERBS
    lines += [f"  {name:<9} {text}" for name, text in listed.items()]
    lines += [
        "",
        "`./launch.sh VERB --help` shows a verb's flags. Exit codes: 0 done, 2 wrong config or usage,",
        "3 unusable data, 4 non-finite loss, 5 another host of the run is gone, 75 preempted and saved",
        "(start again to go on).",
    ]
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    """Ends in one line instead of the whole usage text."""

    def error(self, message):
        raise ConfigError(f"{self.prog}: {message} (see --help)")


def dispatch(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit code; user errors pass through as `MmjaxError`."""
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(usage())
        return 0
    module, flags, overrides = read(argv)
    return module.run(flags, overrides) or 0


def read(argv: Sequence[str]) -> tuple[ModuleType, argparse.Namespace, dict[str, str]]:
    """The module of a verb, its flags, and the overrides of config keys; `ConfigError` for wrong ones."""
    name = argv[0]
    if name not in VERBS:
        known = [*VERBS, *_SHELL_VERBS, "help"]
        raise ConfigError(
            f"'{name}' is not a verb{components.suggestion(name, known)}; verbs: {', '.join(known)}"
        )
    rest, overrides = config.split_overrides(argv[1:])
    module_name, text = VERBS[name]
    module = importlib.import_module(module_name)
    parser = _Parser(prog=f"./launch.sh {name}", description=f"{name}: {text}.", allow_abbrev=False)
    module.add_flags(parser)
    flags, unknown = parser.parse_known_args(rest)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        near = components.suggestion(unknown[0].split("=")[0], known)
        raise ConfigError(f"'{unknown[0]}' is not a flag of {name}{near}; config keys start with --config.")
    return module, flags, overrides


def _set_up_logging() -> None:
    """Our own messages with the time of day; of libraries only warnings."""
    if not absl_flags.FLAGS.is_parsed():  # they are not used here, of which absl's log would complain
        absl_flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(standard_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    package = str(pathlib.Path(__file__).resolve().parent)
    handler.addFilter(
        lambda record: record.levelno >= standard_logging.WARNING or record.pathname.startswith(package)
    )


def _print_error(error: MmjaxError) -> None:
    index, count = processes.place()
    who = f" (process {index} of {count})" if count > 1 else ""
    print(f"error{who}: {' '.join(str(error).splitlines())}", file=sys.stderr)


def end_with(run: Callable[[], int]) -> NoReturn:
    """Ends the process with what `run` returns; turns user errors into one line and their exit code."""
    try:
        code = run()
    except Preempted as error:  # which all processes are together
        if processes.is_first():
            _print_error(error)
        code = error.exit_code
    except MmjaxError as error:
        _print_error(error)
        processes.end_at_once(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        processes.end_at_once(130)
    except BrokenPipeError:
        processes.end_at_once(141)
    except Exception as error:
        gone = processes.lost_another(error)
        if gone is None:
            traceback.print_exc()
            processes.end_at_once(1)
        _print_error(
            LostProcess(
                f"another process of the run is gone ({gone}); its own messages say why; start all of them "
                "again to go on from the last checkpoint"
            )
        )
        processes.end_at_once(LostProcess.exit_code)
    sys.exit(code)


def main() -> None:
    """Entry point."""
    _set_up_logging()
    end_with(lambda: dispatch(sys.argv[1:]))


if __name__ == "__main__":
    main()
