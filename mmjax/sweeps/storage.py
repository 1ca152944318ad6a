"""Where a study's trials are recorded.

SQLite, in the study's directory, is the default. A transaction that `kill -9` interrupts is rolled
back by the next process that opens the file, and its locks go with the process that held them. The
journal file appends lines under a lock that is a file: a process that is killed inside leaves the lock
for half a minute, and may leave half a line, after which the file cannot be read. But it relies on
nothing that network file systems lack, where SQLite's locks do not hold. So: SQLite on one machine, a
journal or PostgreSQL for several.
"""

from __future__ import annotations

import importlib.util
import pathlib
import warnings
from typing import Any

from mmjax.errors import ConfigError

LOCAL = ("sqlite", "journal")
_POSTGRESQL = "postgresql://"
_SECONDS = 120.0  # how long a process waits for SQLite's lock


def check(storage: str) -> None:
    """Raises a `ConfigError` unless `storage` is `sqlite`, `journal` or an address of PostgreSQL."""
    if storage in LOCAL:
        return
    if not storage.startswith(_POSTGRESQL):
        raise ConfigError(
            f"--storage={storage}: expected {', '.join(LOCAL)} or {_POSTGRESQL}USER@HOST/DATABASE"
        )
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "--storage=postgresql: psycopg is not installed; pip install -r requirements/sweep-postgresql.txt"
        )


def without_password(storage: str) -> str:
    """The address as it may be written down; PostgreSQL takes the password from PGPASSWORD or ~/.pgpass."""
    if storage in LOCAL:
        return storage
    from sqlalchemy.engine import make_url

    address = make_url(storage)._replace(password=None).difference_update_query(["password"])
    return address.render_as_string(hide_password=False)


def local_file(storage: str, directory: pathlib.Path) -> pathlib.Path | None:
    """The file that a storage keeps in a study's directory; None for PostgreSQL."""
    names = {"sqlite": "study.sqlite3", "journal": "study.journal"}
    return directory / names[storage] if storage in names else None


def open_storage(storage: str, directory: pathlib.Path) -> Any:
    """Optuna's storage.

    Args:
      storage: as `check` takes it.
      directory: of the study.

    Raises:
      ConfigError: the database cannot be used.
    """
    check(storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna

        if storage == "journal":
            backend = optuna.storages.journal.JournalFileBackend(str(local_file(storage, directory)))
            return optuna.storages.JournalStorage(backend)
        if storage == "sqlite":
            address = f"sqlite:///{local_file(storage, directory).absolute()}"
            return _database(storage, address, connect_args={"timeout": _SECONDS})
        address = storage.replace(_POSTGRESQL, "postgresql+psycopg://", 1)
        return _database(storage, address, pool_pre_ping=True)


def _database(storage: str, address: str, **arguments: Any) -> Any:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.RDBStorage(address, engine_kwargs=arguments)
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise ConfigError(f"--storage={without_password(storage)}: cannot be used ({reason})") from None
