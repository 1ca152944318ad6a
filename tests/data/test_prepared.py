import json

import pytest

from mmjax.data import prepared
from mmjax.errors import DataError


def publish(parent, content="hello", name="data"):
    with prepared.scratch(parent) as directory:
        (directory / "file").write_text(content)
        prepared.publish(directory, parent / name)
    return parent / name


def test_publish_moves_everything_in_one_step(tmp_path):
    target = publish(tmp_path / "deep")
    assert prepared.is_published(target)
    assert set(prepared.read_digests(target, "data")) == {"file"}
    prepared.verify_digests(target, "data")
    assert [path.name for path in target.parent.iterdir()] == ["data"]


def test_the_second_of_two_processes_throws_its_work_away(tmp_path):
    with prepared.scratch(tmp_path) as slow:
        (slow / "file").write_text("hello")
        target = publish(tmp_path)
        before = (target / prepared.DIGESTS).stat().st_ino
        prepared.publish(slow, target)
    assert (target / prepared.DIGESTS).stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), prepared.scratch(tmp_path) as directory:
        (directory / "file").write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"cannot write to .*file.*set data.dir"),
        prepared.scratch(tmp_path / "file"),
    ):
        pass


def test_damage_is_found(tmp_path):
    with pytest.raises(DataError, match="things: not prepared in .*run ./launch.sh prepare"):
        prepared.read_digests(tmp_path / "none", "things")
    target = publish(tmp_path)
    (target / "file").write_text("hallo")
    prepared.read_digests(target, "things")  # the same size: found only by reading everything
    with pytest.raises(DataError, match="things: .*file does not have its recorded SHA-256"):
        prepared.verify_digests(target, "things")
    (target / "file").write_text("hell")
    with pytest.raises(DataError, match="things: .*file has 4 bytes, expected 5; delete .*data and run"):
        prepared.read_digests(target, "things")
    (target / "file").unlink()
    with pytest.raises(DataError, match="things: .*file is missing"):
        prepared.read_digests(target, "things")
    for broken in ("{", json.dumps({"file": 3}), "[]"):
        (target / prepared.DIGESTS).write_text(broken)
        with pytest.raises(DataError, match="digests.json is not readable"):
            prepared.read_digests(target, "things")
