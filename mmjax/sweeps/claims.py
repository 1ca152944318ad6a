"""Claims: which process works on a trial, and whether it still lives.

A claim is a file `<folder>/<name>.<attempt>` that its owner makes in one step and keeps locked (flock)
as long as it holds it. On one machine the kernel drops the lock with the process, also after `kill -9`,
so a claim is lost exactly when its owner is gone. The lock of a process on another machine says little
on a network file system; there the owner touches the file, and it counts as gone after `LEASE_SECONDS`
without a sign of life. The next owner makes the file of the next attempt; of several that try, one
succeeds. So the files also tell how often a trial's worker died.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator

LEASE_SECONDS = 300.0
_BEAT_SECONDS = 10.0
_BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id")


class Claim:
    """Ownership of a name, until `drop`, `give_back` or the end of the process; made by `take`.

    Attributes:
      attempt: 1 for the first owner.
    """

    def __init__(self, path: pathlib.Path, descriptor: int, attempt: int):
        self.path, self.attempt = path, attempt
        self._descriptor = descriptor
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self, lost: Callable[[], None], also: Callable[[], None] = lambda: None) -> None:
        """Shows from now on that this process lives.

        Args:
          lost: called, from another thread, when another process has taken over.
          also: called at every beat.
        """

        def run():
            while not self._stop.wait(_BEAT_SECONDS):
                also()
                try:
                    os.utime(self.path)
                except OSError:
                    continue  # the file system may be back at the next beat
                if attempts(self.path.parent, self.path.stem)[-1] > self.attempt:
                    lost()
                    return

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """Ends ownership; the file stays, and counts as an attempt."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def give_back(self) -> None:
        """Ends ownership as if it had not been."""
        self.path.unlink(missing_ok=True)
        self.drop()


def take(folder: pathlib.Path, name: str) -> Claim | None:
    """Claims a name for this process; None where a living process has it, or was faster.

    Raises:
      OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = attempts(folder, name)
    if before and _alive(folder / f"{name}.{before[-1]}"):
        return None
    attempt = before[-1] + 1 if before else 1
    fresh, path = folder / f".{uuid.uuid4().hex}", folder / f"{name}.{attempt}"
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        # Locked before anyone sees it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps({"machine": _machine(), "process": os.getpid()}).encode())
        os.link(fresh, path)
    except FileExistsError:
        os.close(descriptor)
        return None
    finally:
        fresh.unlink()
    return Claim(path, descriptor, attempt)


@contextlib.contextmanager
def waiting_for(folder: pathlib.Path, name: str) -> Iterator[None]:
    """Inside, this process alone has the claim."""
    while (claim := take(folder, name)) is None:
        time.sleep(0.1)
    try:
        yield
    finally:
        claim.give_back()


def attempts(folder: pathlib.Path, name: str) -> list[int]:
    """The attempts at a name so far, ascending; a claim that was given back is none."""
    found = (path.suffix.removeprefix(".") for path in folder.glob(f"{name}.*"))
    return sorted(int(text) for text in found if text.isdigit()) or []


def _alive(path: pathlib.Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False  # given back meanwhile
    try:
        try:
            machine = json.loads(os.read(descriptor, 4096)).get("machine")
        except (ValueError, AttributeError):
            machine = None
        if machine != _machine():
            return _now(path.parent) - os.fstat(descriptor).st_mtime < LEASE_SECONDS
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False
    finally:
        os.close(descriptor)


def _now(folder: pathlib.Path) -> float:
    """The time by the clock that stamps files there, which may be another machine's."""
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _machine() -> str:
    """This machine, since it was started."""
    boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
    return f"{platform.node()} {boot}"
