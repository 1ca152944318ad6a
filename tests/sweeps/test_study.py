"""A study's directory: made once, opened again, and refused to another sweep."""

import dataclasses
import json

import pytest
from optuna.trial import TrialState
from sweep_cases import METRIC, begin, settings, write_config

from mmjax.errors import ConfigError, DataError
from mmjax.sweeps import claims, storage, study


@pytest.fixture
def reference(tmp_path):
    return write_config(tmp_path)


@pytest.mark.parametrize("where", ["sqlite", "journal"])
def test_a_study_is_made_once_and_opened_again(tmp_path, reference, where):
    made = begin(tmp_path / "s", reference, sweep=["lr", "seed"], seeds=[0, 1], storage=where)
    assert [t.number for t in made.unfinished()] == [0, 1, 2, 3]
    again = begin(tmp_path / "s", reference, sweep=["lr", "seed"], seeds=[0, 1], storage=where)
    assert again.settings == made.settings and len(again.trials()) == 4
    opened = study.open_study(tmp_path / "s")
    assert opened.settings == made.settings
    assert {t.state for t in opened.trials()} == {TrialState.WAITING}
    assert sorted(path.name for path in (tmp_path / "s").iterdir())[0] == "claims"
    assert not list((tmp_path / "s" / "claims").iterdir())


def test_a_search_may_get_more_trials_and_not_fewer(tmp_path, reference):
    begin(tmp_path / "s", reference, search="random", trials=2)
    assert len(begin(tmp_path / "s", reference, search="random", trials=5).trials()) == 5
    with pytest.raises(ConfigError, match="holds another sweep \\(trials: 5 -> 4\\)"):
        begin(tmp_path / "s", reference, search="random", trials=4)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"search": "tpe"}, "search.startup: '\\(absent\\)' -> 10; search.type: 'random' -> 'tpe'"),
        ({"search_seed": 1}, "search_seed: 0 -> 1"),
        ({"metric": "retrieval/image_to_text/R@1"}, f"metric: '{METRIC}' -> 'retrieval"),
        ({"direction": "min"}, "direction: 'max' -> 'min'"),
        ({"pruner": "median"}, "pruner.startup: '\\(absent\\)' -> 4"),
        ({"overrides": {"seed": "9"}}, "overrides.seed: '\\(absent\\)' -> '9'"),
        ({"storage": "journal"}, "storage: 'sqlite' -> 'journal'"),
        ({"search": None, "trials": None, "sweep": ["lr"]}, "points: None -> "),
    ],
)
def test_another_sweep_is_refused_by_what_differs(tmp_path, reference, other, named):
    first = {"search": "random", "trials": 2}
    begin(tmp_path / "s", reference, **first)
    with pytest.raises(ConfigError, match=f"holds another sweep \\(.*{named}.*sweep --resume"):
        begin(tmp_path / "s", reference, **{**first, **other})


def test_a_changed_config_file_is_another_sweep(tmp_path, reference):
    begin(tmp_path / "s", reference, search="random", trials=2)
    path = tmp_path / "config.py"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(ConfigError, match="declared.seed: 3 -> 4"):
        begin(tmp_path / "s", reference, search="random", trials=2)


def test_other_files_are_left_alone(tmp_path, reference):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "launch").mkdir()
    begin(tmp_path / "s", reference, search="random", trials=1)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and not a sweep"):
        begin(tmp_path / "t", reference, search="random", trials=1)
    with pytest.raises(ConfigError, match="is a file; choose a directory"):
        begin(tmp_path / "t" / "notes", reference, search="random", trials=1)
    with pytest.raises(ConfigError, match="cannot be written"):
        begin(tmp_path / "t" / "notes" / "s", reference, search="random", trials=1)


def test_what_is_no_study_or_damaged(tmp_path, reference):
    with pytest.raises(DataError, match="holds no sweep"):
        study.open_study(tmp_path)
    begin(tmp_path / "s", reference, search="random", trials=1)
    path = tmp_path / "s" / "study.json"
    for text in ("{", "{}", json.dumps({"format": study.FORMAT})):
        path.write_text(text)
        with pytest.raises(DataError, match="study.json: is damaged") as caught:
            study.open_study(tmp_path / "s")
        assert "\n" not in str(caught.value)


def test_the_config_of_a_point(tmp_path, reference):
    made = settings(reference, sweep=["lr", "fold"], folds=3, fold_group="series", overrides={"seed": "5"})
    config = made.config(made.points[1])
    assert (config.seed, config.optimizer.schedule.peak) == (5, 1e-3)
    train, test = config.data.train, config.data.eval.test.dataset
    assert (train.type, train.folds, train.fold, train.held_out) == ("fold", 3, 1, False)
    assert (test.fold, test.held_out, test.group) == (1, True, "series")
    with pytest.raises(ConfigError, match="--config.optimizer.schedule.peak: is set by the sweep too"):
        settings(reference, sweep=["lr"], overrides={"optimizer.schedule.peak": "1"})


def test_a_password_is_not_written_down(tmp_path, reference, monkeypatch):
    address = "postgresql://me:secret@db.example/sweeps"
    assert storage.without_password(address) == "postgresql://me@db.example/sweeps"
    made = dataclasses.replace(settings(reference, search="random", trials=1), storage=address)
    monkeypatch.setattr(study.storage_lib, "open_storage", lambda address, directory: None)
    monkeypatch.setattr(study.Study, "fill", lambda self: None)
    begun = study.begin(tmp_path / "s", made, address)
    assert "secret" not in (tmp_path / "s" / "study.json").read_text()
    assert begun.settings.storage == "postgresql://me@db.example/sweeps"  # which the page shows
    study.check_place(tmp_path / "s", made)  # and it is the same study


def test_storages_that_cannot_be_used(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="--storage=mysql://x: expected sqlite, journal or postgresql://"):
        storage.check("mysql://x")
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="psycopg is not installed; pip install -r requirements/sweep-post"):
        storage.open_storage("postgresql://me@db.example/sweeps", tmp_path)


def test_a_database_is_opened_by_one_process_at_a_time(tmp_path, reference, monkeypatch):
    """It makes its tables then, which fails where two do it at once."""
    opened, others = storage.open_storage, []

    def open_storage(address, directory):
        claim = claims.take(directory / "claims", "study")  # what another process would get
        others.append(claim)
        if claim is not None:
            claim.give_back()
        return opened(address, directory)

    monkeypatch.setattr(study.storage_lib, "open_storage", open_storage)
    begin(tmp_path / "s", reference, search="random", trials=1)
    study.open_study(tmp_path / "s")
    assert others == [None, None]


def test_a_damaged_database_is_told_in_one_line(tmp_path, reference):
    begin(tmp_path / "s", reference, search="random", trials=1)
    (tmp_path / "s" / "study.sqlite3").write_bytes(b"no database " * 100)
    with pytest.raises(
        ConfigError, match="--storage=sqlite: cannot be used \\(file is not a database"
    ) as caught:
        study.open_study(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_a_study_is_opened_in_its_own_storage_only(tmp_path, reference):
    made = begin(tmp_path / "s", reference, search="random", trials=1)
    with pytest.raises(ConfigError, match="--storage=journal: the sweep in .* is recorded in sqlite; leave"):
        study.open_study(tmp_path / "s", "journal")
    assert not (tmp_path / "s" / "study.journal").exists()
    made.workdir(made.trials()[0]).mkdir(parents=True)
    (tmp_path / "s" / "study.sqlite3").unlink()
    with pytest.raises(DataError, match="study.sqlite3: is gone, and with it the record of the trials"):
        study.open_study(tmp_path / "s")
    assert not (tmp_path / "s" / "study.sqlite3").exists()


def test_trials_that_were_never_recorded_are_told(tmp_path, reference):
    begin(tmp_path / "s", reference, search="random", trials=1)
    (tmp_path / "s" / "study.sqlite3").unlink()  # as if killed before it was made
    opened = study.open_study(tmp_path / "s")
    with pytest.raises(
        DataError, match="its trials are not recorded in sqlite; record them with sweep --res"
    ):
        opened.trials()
    opened.fill()
    assert len(opened.trials()) == 1
