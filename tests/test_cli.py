"""The command line: verbs, flags, exit codes, and one line for what a user got wrong."""

import json
import pathlib
import subprocess
import sys
import types

import pytest
import tiny

from mmjax import __main__ as cli
from mmjax import config as config_lib
from mmjax import errors
from mmjax.verbs import common

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """A config whose data lies nowhere."""
    root = tmp_path_factory.mktemp("cli")
    path = root / "tiny.json"
    path.write_text(config_lib.to_json(tiny.plain_config(root / "nowhere" / "rows.jsonl", root / "data")))
    return path


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(*arguments) -> (exit code, stdout, stderr), in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_set_up_logging", lambda: None)  # it would change logging for all tests

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mmjax", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return call


def test_help_of_every_verb_is_there_and_loads_nothing_heavy():
    program = """
import contextlib, io, json, sys
from mmjax.__main__ import VERBS, dispatch
texts = {}
for verb in VERBS:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            dispatch([verb, "--help"])
        except SystemExit as end:
            assert end.code == 0, verb
    texts[verb] = out.getvalue()
heavy = [name for name in ("jax", "orbax", "grain", "matplotlib", "pyarrow") if name in sys.modules]
print(json.dumps([texts, heavy]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    texts, heavy = json.loads(done.stdout)
    assert heavy == []  # which is what makes it quick
    assert set(texts) == set(cli.VERBS)
    for verb, text in texts.items():
        assert text.startswith(f"usage: ./launch.sh {verb}")
        assert cli.VERBS[verb][1] in " ".join(text.split())


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_usage_lists_every_verb(run, arguments):
    code, out, err = run(*arguments)
    assert code == 0 and err == ""
    for verb in (*cli.VERBS, "setup", "test", "lint"):
        assert f"\n  {verb} " in out


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["trian"], 2, "'trian' is not a verb (did you mean 'train'?); verbs: train, eval,"),
        (["train", "--wrokdir=x"], 2, "'--wrokdir=x' is not a flag of train (did you mean '--workdir'?)"),
        (["train", "--work=x"], 2, "'--work=x' is not a flag of train (did you mean '--workdir'?)"),
        (["train", "--steps=many"], 2, "argument --steps: invalid int value: 'many' (see --help)"),
        (["train", "--steps=5"], 2, "--steps: is for --overfit-one-batch; a run takes --config.total_steps"),
        (["train", "--fold-group=name"], 2, "--fold-group: is for --folds"),
        (["train", "--profile=3", "--folds=2"], 2, "--profile: got 3, expected how many steps of one"),
        (["train", "--folds=2", "--overfit-one-batch"], 2, "--overfit-one-batch and --folds: give one"),
        (["train", "--overfit-one-batch", "--steps=0", "--config=TINY"], 2, "--steps=0: expected 2 or more"),
        (["train", "--folds=0", "--config=TINY"], 2, "--folds=0: expected 2 or more"),
        (["train", "--config=TINY.txt"], 2, "no file 'TINY.txt'"),
        (["train", "--config=TINY", "--config.sede=1"], 2, "sede: unknown key (did you mean 'seed'?)"),
        (
            ["train", "--config=TINY", "--config.optimizer.schedule.paek=1"],
            2,
            "optimizer.schedule.paek: unknown key (did you mean 'peak'?)",
        ),
        (["train", "--config=TINY", "--config.batch_size=ten"], 2, "batch_size: got 'ten', expected a whole"),
        (["train", "--config=TINY", "--config.batch_size"], 2, "--config.batch_size: has no value"),
        (["train", "--config=TINY", "--config.log.every_steps=0"], 2, "log.every_steps: got 0, expected 1"),
        (
            ["train", "--config=TINY", "--config.data.num_workers=-1"],
            2,
            "data.num_workers: got -1, expected 0",
        ),
        (["train", "--config=TINY", "--config.optimizer.ema=1"], 2, "optimizer.ema: got 1.0, expected 0"),
        (
            ["train", "--config=TINY", "--config.data.streams.text.eval.0.tokenizer=defualt"],
            2,
            "streams.text.eval.0.tokenizer: 'defualt' is not in data.tokenizers (did you mean 'default'?)",
        ),
        (
            ["train", "--config=TINY", "--config.model.fusion.type=co_atention"],
            2,
            "model.fusion.type: got 'co_atention' (did you mean 'co_attention'?)",
        ),
        # What devices and config alone decide is told before anything is looked for.
        (
            ["train", "--config=TINY", "--config.mesh.data=3"],
            2,
            "mesh: got data=3 fsdp=1 tensor=1 sequence=1 for 8 devices; expected sizes whose product is 8, "
            "each one of: 1, 2, 4, 8",
        ),
        (["train", "--config=TINY", "--config.mesh.tensor=3", "--folds=2"], 2, "each one of: 1, 2, 4, 8"),
        (["train", "--config=TINY", "--config.mesh.fsdp=4", "--overfit-one-batch"], 3, "manifest.path: no"),
        (
            ["train", "--config=TINY", "--config.batch_size=12"],
            2,
            "batch_size: got 12, expected a multiple of 8 (data x fsdp = 8 devices, times 1 microbatches), "
            "such as 8 or 16",
        ),
        (
            ["train", "--config=TINY", "--config.optimizer.accumulate_steps=3"],
            2,
            "batch_size: got 8, expected a multiple of 24",
        ),
        (
            ["train", "--config=TINY", "--config.model.heads.colour_logits.label=color"],
            2,
            "model.heads.colour_logits.label: 'color' is not there (did you mean 'colour'?)",
        ),
        (
            ["train", "--config=TINY", "--config.data.eval.test.dataset.max_bad_fraction=2"],
            2,
            "manifest.max_bad_fraction: got 2.0, expected 0 to 1",
        ),
        (["train", "--config=TINY", "--config.checkpoint.keep=0"], 2, "checkpoint.keep: got 0, expected 1"),
        (
            ["train", "--config=TINY", "--config.checkpoint.best_metric=accuracy"],
            2,
            "checkpoint.best_metric: no evaluator gives 'accuracy'",
        ),
        (
            ["train", "--config=TINY", "--config.optimizer.schedule.warmup_percent=110"],
            2,
            "optimizer.schedule.warmup_steps and optimizer.schedule.warmup_percent are both set",
        ),
        (["train", "--config=TINY", "--config.init.run=away"], 3, "init.run: away/checkpoints: holds no"),
        (["train", "--config=TINY"], 3, "manifest.path: no file "),
        (["train", "--config=TINY", "--overfit-one-batch"], 3, "manifest.path: no file "),
        (["train", "--config=TINY", "--folds=2"], 3, "manifest.path: no file "),
        (["prepare", "--config=TINY"], 3, "manifest.path: no file "),
        (["report"], 2, "the following arguments are required: --workdir"),
        (["report", "--workdir=nowhere"], 3, "nowhere"),
        (["report", "--workdir=nowhere", "--config.seed=1"], 2, "--config.seed: report uses the run's own"),
        (["eval", "--workdir=nowhere"], 3, "nowhere/config.json: is missing"),
        (["eval", "--workdir=nowhere", "--config.seed=1"], 2, "--config.seed: eval changes only evals"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(run, config_file, arguments, code, expected):
    arguments = [argument.replace("TINY", str(config_file)) for argument in arguments]
    found, out, err = run(*arguments)
    assert err.startswith("error: ") and err.count("\n") == 1
    assert expected.replace("TINY", str(config_file)) in err
    assert (found, out) == (code, "")


def test_eval_of_a_run_of_another_version(run, tmp_path):
    """A key that is gone is told as the run's; what came later has its default, and the next thing fails."""
    config = config_lib.to_dict(tiny.resolved(tiny.plain_config(tmp_path / "rows.jsonl", tmp_path / "data")))
    del config["remat"]
    for changes, code, expected in (
        ({"speed": 9}, 2, "run/config.json: speed: unknown key"),
        ({}, 3, "manifest.path: no file"),
    ):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | changes))
        found, _, err = run("eval", "--workdir=run")
        assert (found, err.count("\n")) == (code, 1) and expected in err


def test_a_process_says_it_in_one_line_too():
    done = subprocess.run(
        [sys.executable, "-m", "mmjax", "trian"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 'trian' is not a verb") and done.stderr.count("\n") == 1


def test_the_log_holds_our_lines_and_the_warnings_of_libraries():
    program = """
import logging
from absl import logging as absl_logging
from mmjax.__main__ import _set_up_logging
from mmjax.training import workdir
_set_up_logging()
absl_logging.info("a library's chatter")
absl_logging.warning("a library's warning")
exec(compile("absl_logging.info('ours')", workdir.__file__, "exec"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ")[2] for line in done.stderr.splitlines()]  # after the time
    assert lines == ["a library's warning", "ours"]


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (errors.ConfigError("a\nb"), 2, "error: a b\n"),
        (errors.DataError("gone"), 3, "error: gone\n"),
        (errors.NonFiniteError("nan"), 4, "error: nan\n"),
        (errors.Preempted("saved"), 75, "error: saved\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_exit_codes(run, monkeypatch, raised, code, message):
    def fail(flags, overrides):
        raise raised

    verb = types.ModuleType("verb")
    verb.add_flags, verb.run = lambda parser: None, fail
    monkeypatch.setitem(sys.modules, "verb", verb)
    monkeypatch.setitem(cli.VERBS, "fail", ("verb", "fails"))
    assert run("fail") == (code, "", message)


def test_a_bug_keeps_its_traceback(monkeypatch):
    verb = types.ModuleType("verb")
    verb.add_flags, verb.run = lambda parser: None, lambda flags, overrides: {}["missing"]
    monkeypatch.setitem(sys.modules, "verb", verb)
    monkeypatch.setitem(cli.VERBS, "fail", ("verb", "fails"))
    with pytest.raises(KeyError, match="missing"):
        cli.dispatch(["fail"])


def test_default_workdirs():
    found = [common.default_workdir(c) for c in ("configs/a.py", "b/a.py:res=64,x y/z")]
    assert [path.as_posix() for path in found] == ["runs/a", "runs/a-res=64,x_y_z"]
