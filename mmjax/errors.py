"""Errors meant for the person at the keyboard, each with its exit code.

A message is one line: what was given, what was expected, what to do. `python -m mmjax` prints it
without a traceback and exits with the code; anything else that escapes is a bug and keeps its
traceback.
"""

from __future__ import annotations


class MmjaxError(Exception):
    """Base of every error a user can cause; `exit_code` is what the process ends with."""

    exit_code = 1


class ConfigError(MmjaxError):
    """A key, value, flag or combination that cannot be run."""

    exit_code = 2


class DataError(MmjaxError):
    """Data that is missing, damaged, or not what the run was started with."""

    exit_code = 3


class NonFiniteError(MmjaxError):
    """The loss or a gradient became NaN or infinite."""

    exit_code = 4


class LostProcess(MmjaxError):
    """Another process of the run has ended, without which this one cannot go on."""

    exit_code = 5


class Preempted(MmjaxError):
    """The process was asked to stop (SIGTERM); the state has been saved, start again to go on."""

    exit_code = 75
