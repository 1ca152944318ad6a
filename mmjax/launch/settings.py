"""The settings of a place: `--name=value` before the verb, else a variable of the environment.

Values go into the text of a job and into commands, so each has the form that its program knows, and
none holds a character that a shell, or SLURM, reads as anything but itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmjax.components import suggestion
from mmjax.errors import ConfigError

NAME = (r"[A-Za-z0-9][\w.:-]*", "letters, digits, '-', '_', '.' and ':'")
COUNT = (r"[1-9]\d*", "a number, 1 or more")


class Setting(NamedTuple):
    """One setting.

    Attributes:
      name: of the flag, without dashes.
      what: it says, for the help.
      form: (regular expression of the whole value, the same in words).
      default: None where it must be given, '' where it may be left out.
    """

    name: str
    what: str
    form: tuple[str, str] = NAME
    default: str | None = ""

    def variable(self, place: str) -> str:
        """The variable that may hold it, such as MMJAX_TPU_ZONE."""
        return f"MMJAX_{place}_{self.name}".upper().replace("-", "_")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what stands before the verb, the verb and its arguments)."""
    verb = next((i for i, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    return list(arguments[:verb]), list(arguments[verb:])


def read(
    place: str, settings: Sequence[Setting], flags: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str]:
    """The value of every setting, as text.

    Args:
      place: such as 'slurm', part of the variables' names.
      settings: those of the place.
      flags: what stands before the verb, `--name=value` each.
      environment: where variables are looked up.

    Raises:
      ConfigError: a flag that is unknown, given twice or without a value; a value of another form; or a
        setting that is missing.
    """
    given: dict[str, str] = {}
    names = [setting.name for setting in settings]
    for flag in flags:
        name, separator, value = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or name not in names:
            near = suggestion(name.lstrip("-"), names)
            known = ", ".join(f"--{name}" for name in ["dry-run", *names])
            raise ConfigError(
                f"'{flag}' is no setting of --on={place}{near}; it has: {known}; a flag of the verb stands "
                "after the verb"
            )
        if not separator:
            raise ConfigError(f"--{name}: has no value; write --{name}=VALUE")
        if name in given:
            raise ConfigError(f"--{name}: is given twice; give it once")
        given[name] = value
    values = {}
    for setting in settings:
        variable = setting.variable(place)
        source, value = f"--{setting.name}={given.get(setting.name)}", given.get(setting.name)
        if value is None:
            value = environment.get(variable) or setting.default
            source = f"{variable}={value}"
        if value is None:
            raise ConfigError(
                f"--on={place}: --{setting.name} is missing ({setting.what}); give --{setting.name}=VALUE "
                f"before the verb, or set {variable}"
            )
        pattern, words = setting.form
        if value != setting.default and not re.fullmatch(pattern, value):
            raise ConfigError(f"{source}: expected {words}")
        values[setting.name] = value
    return values


def describe(place: str, settings: Sequence[Setting]) -> list[str]:
    """A line of help for each setting."""
    width = max(len(setting.name) for setting in settings)
    lines = []
    for setting in settings:
        need = "required" if setting.default is None else f"default: {setting.default or 'left out'}"
        lines.append(f"  --{setting.name:<{width}}  {setting.what} ({need}; {setting.variable(place)})")
    return lines
