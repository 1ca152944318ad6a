"""What tests need from outside this repository, and what they do where it is not there."""

import os
import pathlib
import subprocess
import sys
from typing import NoReturn

import pytest


def missing(message: str) -> NoReturn:
    """Skips the test; with MMJAX_REFERENCE=1, which promises that everything is there, fails it."""
    if os.environ.get("MMJAX_REFERENCE") == "1":
        pytest.fail(message)
    pytest.skip(message)


def download(folder: pathlib.Path, *requirements: str) -> str:
    """Fetches wheels without their dependencies; the folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    if subprocess.run([*command, *requirements], capture_output=True).returncode:
        missing(f"cannot be downloaded here: {', '.join(requirements)}")
    return str(folder)
