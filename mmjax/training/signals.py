"""SIGTERM as a request that the loop answers between two steps."""

from __future__ import annotations

import signal


class StopRequest:
    """Inside the context `requested` tells whether SIGTERM has come; the old handler returns after."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopRequest:
        self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, signum, frame) -> None:
        self.requested = True
