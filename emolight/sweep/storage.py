"""The database that holds a study: SQLite beside the runs, or PostgreSQL for many machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from emolight.errors import EmolightError

HEARTBEAT, GRACE = 10, 60
"""Seconds between signs of life, and without one after which a trial counts as lost."""
LIBPQ = {"connect_timeout": 20, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}
"""Seconds, unless the URL says otherwise: by default a server that is cut off is waited for, for hours."""


class Storage(RDBStorage):
    """A database whose heartbeat goes on after a beat that failed."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Note that the trial's worker lives."""
        with suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def open_storage(url: str, heartbeat: int = HEARTBEAT, grace: int = GRACE) -> Storage:
    """Open a database of studies; an empty one is made ready.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.
        heartbeat: seconds between signs of life of a running trial.
        grace: seconds without one after which it counts as lost.

    Raises:
        EmolightError: there is no such database.
    """
    from emolight.sweep.study import fill  # which is built on this

    place = _place(url)
    backend = place.get_backend_name()
    options: dict[str, Any] = {"pool_pre_ping": True}
    if backend == "sqlite":
        options = {"connect_args": {"timeout": 120}}
        folder = Path(place.database or "").parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmolightError(
                f"The folder {folder} cannot be made: {error.strerror}.", "Name another --storage."
            ) from None
    elif place.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        backend = "postgresql"
        url = "postgresql+psycopg" + url[url.index(":") :]
        options["connect_args"] = {name: value for name, value in LIBPQ.items() if name not in place.query}
    try:
        with _alone(url, options):
            storage = Storage(
                url,
                options,
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=lambda study, _: fill(study),
            )
    except (ImportError, NoSuchModuleError) as error:
        fix = "Write postgresql://USER@HOST/DATABASE without a driver."
        if url.startswith("postgresql+psycopg:"):
            fix = 'pip install "emolight[postgresql]"'
        raise EmolightError(f"No driver for --storage {place.drivername}: {_cause(error)}.", fix) from None
    except (DBAPIError, StorageInternalError) as error:
        shown = place.set(query={}).render_as_string()
        raise EmolightError(
            f"The database {shown} does not open: {_cause(error)}", "Check that it exists and answers."
        ) from None
    if backend == "sqlite":
        _serialise(storage)
    return storage


def _place(url: str) -> URL:
    """The parts of a URL; a mistake in it is told without what may be a password."""
    fix = "Write postgresql://USER@HOST/DATABASE"
    try:
        place = make_url(url)
    except (ArgumentError, ValueError):
        scheme = re.match(r"\w*", url)
        raise EmolightError(f"--storage '{scheme and scheme[0]}…' is not the URL of a database.", fix) from None
    if place.get_backend_name() != "sqlite" and "@" in f"{place.host}{place.database}":
        raise EmolightError("--storage has an @ too many.", f"{fix}, and %40 for an @ in a name or password.")
    return place


@contextmanager
def _alone(url: str, options: Mapping[str, Any]) -> Iterator[None]:
    """One process at a time on PostgreSQL: of several that make the tables at once, all but one would fail."""
    if not url.startswith("postgresql+psycopg:"):
        yield
        return
    engine = create_engine(url, **options)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(20262511)")  # any number, the same for all
            yield
    finally:
        engine.dispose()


def _cause(error: BaseException) -> str:
    """What the database's driver said, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def _serialise(storage: RDBStorage) -> None:
    """Let SQLite's transactions take the write lock at their beginning.

    SQLite has no ``FOR UPDATE``, and its driver begins a transaction at the first write only: two workers would
    read the same waiting trial and both take it.
    """
    storage.engine.dispose()  # connections made before the events are set

    @event.listens_for(storage.engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        # Half the time of a trivial trial; a crash of the machine may lose the last moments, and harms nothing.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(storage.engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def storage_answers() -> Iterator[None]:
    """A database that is lost in the middle ends the command with one message."""
    try:
        yield
    except (DBAPIError, StorageInternalError) as error:
        raise EmolightError(
            f"The study's database is gone: {_cause(error)}", "When it answers again, the same command goes on."
        ) from None
