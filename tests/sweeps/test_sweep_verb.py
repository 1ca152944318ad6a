"""The verb: what is refused in one line before anything is written, and what is asked of workers."""

import pathlib
import sys

import pytest
from sweep_cases import METRIC, Train, write_config

from mmjax import __main__ as cli
from mmjax.errors import ConfigError
from mmjax.sweeps import pool, worker
from mmjax.verbs import sweep

M = f"--metric={METRIC}"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(*arguments) -> (exit code, stdout, stderr) of `sweep`, in an empty directory with config.py."""
    reference = write_config(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(cli, "_set_up_logging", lambda: None)
    monkeypatch.setattr("mmjax.sweeps.plan.load_data", lambda config, workdir: None)

    def call(*arguments):
        if not any(a.startswith("--config=") for a in arguments) and "--resume" not in arguments:
            arguments = (f"--config={reference}", *arguments)
        monkeypatch.setattr(sys, "argv", ["mmjax", "sweep", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    call.here = here
    return call


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([M], 2, "sweep: give --sweep=NAMES, or --search=SAMPLER"),
        ([M, "--sweep=lr", "--search=tpe"], 2, "--sweep=lr: goes with --search=grid only; leave"),
        ([M, "--sweep=rl"], 2, "--sweep=rl: is unknown; there are: seed, fold, lr (a function sweep_NAME()"),
        ([M, "--sweep=seed"], 2, "--sweep=seed: give the seeds too"),
        ([M, "--sweep=seed", "--seeds=a"], 2, "--seeds=a: expected whole numbers with commas"),
        ([M, "--sweep=lr", "--seeds=1"], 2, "--seeds: is for --sweep=seed"),
        ([M, "--sweep=lr", "--folds=3"], 2, "--folds: is for --sweep=fold"),
        ([M, "--sweep=fold", "--folds=1"], 2, "--folds=1: expected 2 or more"),
        ([M, "--sweep=lr", "--trials=2"], 2, "--trials=2: these are all 2 combinations; leave --trials out"),
        ([M, "--search=tpe"], 2, "--trials: is missing"),
        ([M, "--search=tpe", "--trials=0"], 2, "--trials: got 0"),
        ([M, "--search=tpee", "--trials=2"], 2, "--search=tpee: expected one of: random, tpe, cma_es, grid"),
        ([M, "--search=grid"], 2, "--search=grid: optimizer.schedule.peak has infinitely many values"),
        ([M, "--search=cma_es", "--trials=2"], 2, "--search=cma_es: batch_size is a choice"),
        ([M, "--search=tpe", "--trials=2", "--workers=0"], 2, "--workers=0: expected 1 or more"),
        ([M, "--search=tpe", "--trials=2", "--retries=-1"], 2, "--retries=-1: expected 0 or more"),
        (
            [M, "--search=tpe", "--trials=2", "--pruner=best"],
            2,
            "--pruner=best: expected one of: none, median",
        ),
        ([M, "--search=tpe", "--trials=2", "--storage=mysql://x"], 2, "--storage=mysql://x: expected sqlite"),
        ([M, "--search=tpe", "--trials=2", "--config.sede=1"], 2, "sede: unknown key (did you mean 'seed'?)"),
        (["--sweep=lr"], 2, "--metric: is missing; name the number of result.json to choose by, one of: cla"),
        (["--sweep=lr", "--metric=accuracy"], 2, "--metric: no evaluator gives 'accuracy'; expected one of:"),
        (
            ["--sweep=lr", "--metric=retrieval/image_to_text/R@1", "--pruner=median"],
            2,
            "--pruner=median: evals.retrieval measures retrieval/image_to_text/R@1 only at the end",
        ),
        (["--resume"], 2, "--resume: give the sweep's directory too"),
        (["--resume", "--workdir=x"], 3, "x: holds no sweep (no study.json)"),
        (["--resume", "--workdir=x", "--trials=3"], 2, "--trials: --resume goes on with the sweep as it is"),
        (["--resume", "--workdir=x", "--config.seed=1"], 2, "--config.seed: --resume goes on with the sweep"),
        (["--worker", "--workdir=x"], 3, "x: holds no sweep"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(run, arguments, code, message):
    found, out, err = run(*arguments)
    assert (found, out) == (code, ""), err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert list(run.here.iterdir()) == []


@pytest.mark.parametrize(
    ("functions", "arguments", "message"),
    [
        (
            "def sweep_a():\n    yield {'optimizer.schedule.paek': 1.0}\n",
            ["--sweep=a"],
            "with optimizer.schedule.paek=1: optimizer.schedule.paek: unknown key (did you mean 'peak'?)",
        ),
        (
            "def sweep_a():\n    yield {'batch_size': 'many'}\n",
            ["--sweep=a"],
            "with batch_size=many: batch_size: got 'many', expected a whole number",
        ),
        (
            "def search_space():\n    return {'batch_siez': 3}\n",
            ["--search=random", "--trials=2"],
            "search space: batch_siez: got 3, expected uniform",
        ),
        (
            "from mmjax.sweeps.space import *\ndef search_space():\n    return {'batch_siez': choice([8])}\n",
            ["--search=random", "--trials=2"],
            "with batch_siez=8: batch_siez: unknown key (did you mean 'batch_size'?)",
        ),
        (
            "from mmjax.sweeps.space import *\n"
            "def search_space():\n    return {'total_steps': uniform(1.0, 2.5)}\n",
            ["--search=random", "--trials=2"],
            "total_steps: got '1.0', expected a whole number",
        ),
        (
            "from mmjax.sweeps.space import *\n"
            "def search_space():\n    return {'batch_size': uniform(16, 64)}\n",
            ["--search=random", "--trials=2"],
            "batch_size: got '16.0', expected a whole number",
        ),
        ("", ["--search=random", "--trials=2"], "config.py defines no function search_space()"),
        ("def search_space():\n    return {}\n", ["--search=grid"], "search_space(): is empty"),
    ],
)
def test_what_a_config_file_declares_wrongly(run, tmp_path, functions, arguments, message):
    reference = write_config(tmp_path, functions)
    code, _, err = run(f"--config={reference}", M, *arguments)
    assert code == 2 and message in err and err.count("\n") == 1
    assert list(run.here.iterdir()) == []


def test_a_whole_sweep_in_one_worker(run, monkeypatch):
    train = Train()
    monkeypatch.setattr(worker, "train", train)
    arguments = ["--sweep=lr,seed", "--seeds=0,1", M, "--worker"]
    code, out, err = run(*arguments)
    assert code == 0, err
    assert f"best {METRIC}: 0.9930 ± 0.007071 (std of 2 runs) with optimizer.schedule.peak=0.001\n" in out
    directory = pathlib.Path("runs/sweeps/config-lr-seed")
    names = {"study.json", "study.sqlite3", "sweep.html", "trials.csv", "trials.parquet", "best.json"}
    assert {path.name for path in directory.iterdir()} >= names
    assert len(train.runs) == 4
    # The same command again, and --resume, start no process and train nothing.
    monkeypatch.setattr(pool.Pool, "run", lambda self: pytest.fail("nothing is left"))
    for again in (arguments[:-1], ["--resume", f"--workdir={directory}"]):
        code, again_out, _ = run(*again)
        assert (code, again_out) == (0, out)
    assert len(train.runs) == 4
    (directory / "sweep.html").unlink()
    monkeypatch.setattr(sys, "argv", ["mmjax", "report", f"--workdir={directory}"])
    with pytest.raises(SystemExit):
        cli.main()
    assert (directory / "sweep.html").is_file()
    code, _, err = run("--sweep=lr,seed", "--seeds=0,2", M)
    assert code == 2 and "holds another sweep (points.1.seed: 1 -> 2" in err


def test_trials_that_fail_are_told_and_all_failing_is_an_error(run, monkeypatch):
    train = Train()
    train.absurd = {1}
    monkeypatch.setattr(worker, "train", train)
    code, out, _ = run("--sweep=seed", "--seeds=0,1", M, "--worker")
    assert code == 0 and "1 trials failed; the first: step 1: not finite: loss\n" in out
    code, _, err = run("--sweep=seed", "--seeds=1", M, "--worker", "--workdir=other")
    assert code == 1 and "error: no trial has finished" in err


def test_the_metric_may_come_from_the_config(run, monkeypatch):
    monkeypatch.setattr(worker, "train", Train())
    code, out, err = run("--sweep=lr", f"--config.checkpoint.best_metric={METRIC}", "--worker")
    assert code == 0 and f"best {METRIC}: 0.9680" in out, err


def test_the_command_of_one_worker():
    command = ["sweep", "--config=a.py", "--workers", "4", "--sweep=lr", "--workers=3"]
    assert sweep.one_worker(command) == ["sweep", "--config=a.py", "--sweep=lr", "--worker"]


@pytest.mark.parametrize(
    ("count", "environment", "expected"),
    [
        (2, {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0,1"}, [{}, {}]),
        (1, {"CUDA_VISIBLE_DEVICES": "0,1"}, [{"CUDA_VISIBLE_DEVICES": "0,1"}]),
        (
            2,
            {"CUDA_VISIBLE_DEVICES": "4,5,6"},
            [{"CUDA_VISIBLE_DEVICES": "4,6"}, {"CUDA_VISIBLE_DEVICES": "5"}],
        ),
        (
            3,
            {"CUDA_VISIBLE_DEVICES": "0,1"},
            [
                {"CUDA_VISIBLE_DEVICES": gpu, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}
                for gpu in ("0", "1", "0")
            ],
        ),
        (2, {"CUDA_VISIBLE_DEVICES": ""}, [{}, {}]),
    ],
)
def test_gpus_are_dealt_out(count, environment, expected):
    assert pool.share_devices(count, environment) == expected


def test_a_tpu_has_one_worker():
    assert pool.share_devices(1, {"MMJAX_ACCELERATOR": "tpu", "CUDA_VISIBLE_DEVICES": ""}) == [{}]
    with pytest.raises(ConfigError, match="--workers=2: the TPU of a machine belongs to one process"):
        pool.share_devices(2, {"MMJAX_ACCELERATOR": "tpu"})


def test_resume_records_the_trials_that_are_missing(run, monkeypatch):
    """The process that made the study was killed while it recorded them."""

    def killed(self):
        raise KeyboardInterrupt

    train = Train()
    monkeypatch.setattr(worker, "train", train)
    with monkeypatch.context() as patch:
        patch.setattr("mmjax.sweeps.study.Study.fill", killed)
        patch.setattr("mmjax.parallel.processes.end_at_once", sys.exit)
        assert run("--sweep=seed", "--seeds=0,1", M, "--worker", "--workdir=s")[0] == 130
    code, _, err = run("--resume", "--worker", "--workdir=s")
    assert code == 0 and len(train.runs) == 2, err


def test_a_worker_that_joins_a_study_may_be_launched_elsewhere(tmp_path):
    """It takes everything from the study, so no other flag is asked for."""
    flags, overrides = cli.read(["sweep", "--worker", f"--workdir={tmp_path}"])[1:]
    assert sweep.check_elsewhere(flags, overrides, "slurm") == 1
    flags, overrides = cli.read(["sweep", "--worker", "--search=tpe", f"--workdir={tmp_path}"])[1:]
    with pytest.raises(ConfigError):
        sweep.check_elsewhere(flags, overrides, "slurm")
