"""Workers on a study whose training is a stand-in: what is recorded, resumed, given up and never repeated."""

import json
import os
import signal
import types

import optuna
import pytest
from optuna.trial import TrialState
from sweep_cases import METRIC, Train, begin, score, write_config

from mmjax.errors import NonFiniteError, Preempted
from mmjax.sweeps import claims, results, worker
from mmjax.sweeps.study import open_study
from mmjax.training.signals import StopRequest

C, F, P, R, W = (
    TrialState.COMPLETE,
    TrialState.FAIL,
    TrialState.PRUNED,
    TrialState.RUNNING,
    TrialState.WAITING,
)


@pytest.fixture
def train(monkeypatch):
    stand_in = Train()
    monkeypatch.setattr(worker, "train", stand_in)
    return stand_in


@pytest.fixture
def study(tmp_path):
    return begin(tmp_path / "s", write_config(tmp_path), sweep=["seed"], seeds=[0, 1, 2])


def states(study):
    return [trial.state for trial in study.trials()]


class Killed(BaseException):
    """Stands for the end of the process: nothing is caught or tidied up."""


def die(study, train, at):
    """Works until `at` says (directory, step), and leaves everything as kill -9 would."""

    def stop(workdir, step):
        if (workdir.name, step) == at:
            raise Killed

    train.stop = stop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims.Claim, "give_back", claims.Claim.drop)
        with pytest.raises(Killed):
            worker.work(study)
    train.stop = lambda workdir, step: None


def test_every_trial_is_run_once_and_recorded(study, train):
    worker.work(study)
    assert states(study) == [C, C, C]
    assert train.runs == [("00000", 0), ("00001", 0), ("00002", 0)]
    rows = results.collect(study)
    assert [row.value for row in rows] == [
        score(study.settings.config(point)) for point in study.settings.points
    ]
    worker.work(open_study(study.directory))
    assert len(train.runs) == 3


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(study, train):
    train.absurd = {1}
    worker.work(study)
    assert states(study) == [C, F, C]
    row = results.collect(study)[1]
    assert (row.state, row.error) == (results.FAILED, "step 1: not finite: loss")
    worker.work(study)  # it is not tried again
    assert len(train.runs) == 3


def test_failed_trials_are_run_again_when_asked_for(study, train):
    def stop(workdir, step):
        if workdir.name == "00001" and step == 3:
            raise OSError("no space left")

    train.stop = stop
    for _ in range(2):  # it fails again
        worker.work(study)
        assert [row.state for row in results.collect(study)] == ["finished", "failed", "finished"]
        assert study.retry_failed() == 1
    train.stop = lambda workdir, step: None
    worker.work(open_study(study.directory))
    rows = results.collect(study)
    assert [(row.number, row.state) for row in rows] == [(k, "finished") for k in range(3)]
    assert [row.point["seed"] for row in rows] == [0, 1, 2] and rows[1].error == ""
    # In its directory, from where it was; nothing else was run again.
    assert train.runs == [("00000", 0), ("00001", 0), ("00002", 0), ("00001", 2), ("00001", 2)]
    assert study.retry_failed() == 0
    study.fill()
    assert len(study.trials()) == 3


def test_a_bug_in_one_trial_costs_only_that(study, train):
    def stop(workdir, step):
        if workdir.name == "00000":
            raise ValueError("first line\nsecond line")

    train.stop = stop
    worker.work(study)
    assert states(study) == [F, C, C]
    assert results.collect(study)[0].error == "ValueError: first line"


def test_a_metric_that_is_not_measured_fails_the_trial_at_its_end(tmp_path, train):
    metric = METRIC.replace("accuracy", "acuracy")
    study = begin(tmp_path / "s", write_config(tmp_path), sweep=["seed"], seeds=[0], metric=metric)
    worker.work(study)
    (row,) = results.collect(study)
    assert "was not measured (did you mean 'classification/colour_logits/accuracy'?)" in row.error


def test_a_metric_that_one_evaluation_does_not_define_is_left_out_there(tmp_path):
    """The same evaluator gives its others; a number that is not defined yet may be later."""
    observe = worker.Observer(None, types.SimpleNamespace(metric=METRIC), tmp_path)
    observe(1, {METRIC.replace("accuracy", "balanced_accuracy"): 0.5})  # a report would fail: no trial


def test_a_killed_workers_trial_goes_on_where_it_was(study, train):
    die(study, train, ("00001", 3))
    assert states(study) == [C, R, W]
    worker.work(open_study(study.directory))
    assert states(study) == [C, C, C]
    assert train.runs == [("00000", 0), ("00001", 0), ("00001", 2), ("00002", 0)]
    rows = results.collect(study)
    assert [row.attempts for row in rows] == [1, 2, 1]
    assert len(study.trials()) == 3  # and it is not counted twice
    # What the first attempt reported is there once.
    assert sorted(study.trials()[1].intermediate_values) == [1, 2, 3]


def test_killed_between_the_end_of_training_and_its_record(study, train, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(claims.Claim, "give_back", claims.Claim.drop)

        def killed(*arguments, **fields):
            raise Killed

        patch.setattr(worker, "_finish", killed)
        with pytest.raises(Killed):
            worker.work(study)
    assert states(study) == [R, W, W]
    worker.work(study)
    assert states(study) == [C, C, C]
    assert train.runs.count(("00000", 0)) == 1


def test_a_trial_that_kills_its_workers_is_given_up(study, train):
    for _ in range(1 + study.settings.retries):
        die(study, train, ("00000", 1))
    worker.work(study)
    assert states(study) == [F, C, C]
    row = results.collect(study)[0]
    assert row.error == "its worker was killed 3 times" and row.attempts == 3


def test_a_searched_point_is_the_same_after_a_kill(tmp_path, train):
    study = begin(tmp_path / "s", write_config(tmp_path), search="tpe", trials=2)
    die(study, train, ("00000", 2))
    before = results.collect(study)[0].point
    worker.work(study)
    rows = results.collect(study)
    assert rows[0].point == before and set(before) == {
        "optimizer.schedule.peak",
        "optimizer.ema",
        "batch_size",
    }
    assert [row.state for row in rows] == [results.FINISHED] * 2


def test_sigterm_gives_the_trial_back(study, train):
    train.stop = lambda workdir, step: step == 3 and os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Preempted, match="start the sweep again to go on"):
        worker.work(study)
    assert states(study) == [R, W, W]
    assert claims.attempts(study.directory / "claims", "00000") == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train.stop = lambda workdir, step: None
    worker.work(study)
    assert [row.attempts for row in results.collect(study)] == [1, 1, 1]


@pytest.mark.parametrize("error", [worker.Pruned, NonFiniteError])
def test_sigterm_is_heard_when_the_training_ends_by_an_error(study, train, error):
    def stop(workdir, step):
        with StopRequest():  # as the loop has it around its steps
            os.kill(os.getpid(), signal.SIGTERM)
            raise error

    train.stop = stop
    with pytest.raises(Preempted):
        worker.work(study)
    assert states(study) == [R, W, W] and len(train.runs) == 1
    train.stop = lambda workdir, step: None
    worker.work(study)
    assert states(study) == [C, C, C]


def test_a_trial_that_another_worker_has_is_left_to_it(study, train, monkeypatch):
    held = claims.take(study.directory / "claims", "00000")
    waits = []

    def sleep(seconds):
        waits.append(states(study))
        held.drop()  # the other worker dies

    monkeypatch.setattr(worker.time, "sleep", sleep)
    worker.work(study)
    assert waits == [[W, C, C]]
    assert states(study) == [C, C, C]


def test_a_worker_stops_when_the_process_that_started_it_is_gone(study, train, monkeypatch):
    held = [claims.take(study.directory / "claims", f"{number:05d}") for number in range(3)]
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: None)
    with pytest.raises(Preempted):
        worker.work(study, parent=os.getppid() + 1)
    assert len(held) == 3 and train.runs == []


def test_evaluations_are_counted_and_not_steps(tmp_path, monkeypatch):
    """So that runs with other batches are compared at the same share of their training."""
    reported = []

    class Trial:
        def report(self, value, step):
            reported.append((value, step))

        def should_prune(self):
            return len(reported) == 3

    class Settings:
        metric = METRIC

    observe = worker.Observer(Trial(), Settings(), tmp_path)
    log = tmp_path / "metrics.jsonl"
    with pytest.raises(worker.Pruned):
        for step in (30, 60, 90):
            with log.open("a") as file:
                file.write(json.dumps({"step": step, "train/loss": 1.0}) + "\n")
                file.write(json.dumps({"step": step, METRIC: step / 100}) + "\n")
            observe(step, {METRIC: step / 100})
            observe(step, {"retrieval/image_to_text/R@1": 1.0})  # another evaluator's round
    assert reported == [(0.3, 1), (0.6, 2), (0.9, 3)]


def test_optuna_is_quiet(study, train, capfd):
    worker.work(study)
    assert "Trial" not in capfd.readouterr().err
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
