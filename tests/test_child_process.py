import os
import pathlib
import subprocess

from mmjax import child_process


def test_a_process_finds_this_code_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = child_process.environment({"MMJAX_X": "1"})
    root = str(pathlib.Path(child_process.__file__).parents[1])
    assert environment["PYTHONPATH"] == os.pathsep.join([root, str(tmp_path)])
    assert environment["MMJAX_X"] == "1" and "MMJAX_X" not in os.environ
    done = subprocess.run(child_process.command("--help"), env=environment, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and b"./launch.sh VERB" in done.stdout
