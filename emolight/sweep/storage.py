"""The database that holds a study: SQLite beside the runs, or PostgreSQL for many machines."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from emolight.errors import EmolightError

HEARTBEAT, GRACE = 10, 60  # seconds between signs of life of a trial, and without one after which it counts as lost
LIBPQ = {"connect_timeout": 20, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}
"""By default a server that is cut off is waited for, for hours."""
ERRORS = (DBAPIError, StorageInternalError)

warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Storage(RDBStorage):
    """A database whose heartbeat goes on after a beat that failed."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Note that the trial's worker lives."""
        with suppress(StorageInternalError):
            super().record_heartbeat(trial_id)


def open_storage(url: str, create: bool = False, heartbeat: int = HEARTBEAT, grace: int = GRACE) -> Storage:
    """Open a database of studies, ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.

    ``create`` makes the tables; of several processes that do so at once, all but one would fail. EmolightError, when
    there is no such database, shows no password.
    """
    fix = "Write sqlite:///FILE or postgresql://USER@HOST/DATABASE, where `sweep` has made the study."
    with database_errors("does not open", fix, (*ERRORS, ImportError, ValueError, ArgumentError, NoSuchModuleError)):
        place = make_url(url)
        sqlite = place.get_backend_name() == "sqlite"
        if not sqlite and "@" in f"{place.host}{place.database}":
            raise ArgumentError("it has an @ too many; write %40 for one in a name or password")
        url = re.sub("^postgres(ql)?:", "postgresql+psycopg:", url)
        options = {"connect_args": {"timeout": 120} if sqlite else LIBPQ, "pool_pre_ping": not sqlite}
        beats: Any = {"heartbeat_interval": heartbeat, "grace_period": grace}
        storage = Storage(url, options, skip_table_creation=not create, **beats)
    if sqlite:
        # SQLite has no FOR UPDATE, and its driver begins a transaction at the first write only: two workers would read
        # the same waiting trial and both take it. So transactions take the write lock at their beginning.
        storage.engine.dispose()  # connections made before the events are set
        event.listen(storage.engine, "connect", _connected)
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


def _connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    # Half the time of a trivial trial; a crash of the machine may lose the last moments, and harms nothing.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file; SQLAlchemy reads ``%`` and ``?`` in a URL."""
    return f"sqlite:///{quote(str(path.resolve()))}"


def shown_url(url: str) -> str:
    """A database's URL without its password."""
    return make_url(url)._replace(password=None).set(query={}).render_as_string()


@contextmanager
def database_errors(
    what: str = "is gone",
    fix: str = "When it answers again, the same command goes on.",
    kinds: tuple[type[Exception], ...] = ERRORS,
) -> Iterator[None]:
    """What is wrong with a database, as :class:`EmolightError` of two lines."""
    try:
        yield
    except kinds as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        fix = 'pip install "emolight[cluster]"' if isinstance(cause, ImportError) else fix
        told = "it is no URL" if isinstance(cause, ValueError) else " ".join(str(cause).split())[:300]
        raise EmolightError(f"The study's database {what}: {told}.", fix) from None
