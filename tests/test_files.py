"""Files are whole, or as they were before."""

import os
import subprocess
import sys

import pytest

from mmjax.files import write_json, write_text
from mmjax.training.workdir import read_json


def test_what_is_written_is_read_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "x.json"
    for value in ({"b": [1, 0.1], "a": "é"}, {"b": None}):
        write_json(path, value)
        assert read_json(path) == value
    write_text(path, "text é\n")
    assert path.read_text(encoding="utf-8") == "text é\n"
    assert list(path.parent.iterdir()) == [path]
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~current_umask()  # readable by whom others' files are


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of it \ud800")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path):
    """Another process writes texts of one letter, all of one length, again and again."""
    path = tmp_path / "x"
    size = 1 << 20
    write_text(path, "a" * size)
    program = f"""
import pathlib
from mmjax.files import write_text
for i in range(60):
    write_text(pathlib.Path({str(path)!r}), "ab"[i % 2] * {size})
"""
    with subprocess.Popen([sys.executable, "-c", program]) as writer:
        seen = set()
        while writer.poll() is None:
            text = path.read_text()
            assert len(text) == size and len(set(text)) == 1
            seen.add(text[0])
    assert writer.returncode == 0 and seen == {"a", "b"}


def test_it_loads_nothing_heavy():
    program = "import sys, mmjax.files; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
