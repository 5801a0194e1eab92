"""The record of events on disk: what a monitor catches up from, also after a restart of the daemon.

SQLite in WAL mode: what is committed survives SIGKILL at any moment (not a power cut, which may cost the last seconds).
Events are given to clients after that. One thread owns the database. A disk that hangs delays events by a moment and no
longer; one that refuses costs events of the record and is reported; a corrupt file is set aside.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import structlog

from focusd.daemon.events import Event, EventBus
from focusd.daemon.metrics import QUEUE
from focusd.errors import BusyError, FocusdError
from focusd.protocol.messages import encode, one_page
from focusd.storage.files import make_way

log = structlog.get_logger(__name__)

LEFT_OUT = ("heartbeat", "focus.progress")
"""Topics of many events that tell nothing later; the memory of the running daemon has them for a while."""
KEPT = 200_000
"""Events; the oldest go first."""
_WAITING = 10_000
_READING = 8
"""Questions that may wait for the disk at once: it has events to write, too."""
_PRUNE_EVERY = 1000
_ANSWER_S = 3.0
_PATIENCE_S = 1.0
"""How long the disk may keep an event from its subscribers."""
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite appends to the names of the files beside its own."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL,
    UNIQUE (session, seq)
)
"""

_Task = Callable[[sqlite3.Connection], Any]


def is_kept(event: Event) -> bool:
    """Whether an event goes on record."""
    return event["topic"] not in LEFT_OUT and not event.get("retold")


class Record:
    """Events on disk, oldest first.

    Args:
        path: created when it is not there; a file that is no database is renamed to `….corrupt-<time>`.
    """

    def __init__(self, path: Path, kept: int = KEPT) -> None:
        self._path = path
        self._kept = kept
        self._queue: Queue[tuple[_Task, Future[Any]] | None] = Queue(_WAITING)
        QUEUE.labels("disk").set_function(self._queue.qsize)
        self._written = 0
        self._hangs = False
        self._complains = True
        self._reading = 0
        self._thread = threading.Thread(target=self._work, name="focusd-record", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        """Put an event on record. Never waits."""
        if is_kept(event):
            body = encode(event).decode()
            with suppress(Full):  # the disk hangs: the record has a gap, the daemon goes on
                self._queue.put_nowait((lambda db: self._insert(db, event, body), Future()))

    async def flushed(self) -> None:
        """Return when all that was written before is on disk, or the disk has refused it; at once while it hangs."""
        if self._hangs:
            return
        future: Future[None] = Future()
        with suppress(Full, sqlite3.Error, OSError):
            self._queue.put_nowait((lambda _database: None, future))
            try:
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), _PATIENCE_S)
            except TimeoutError:
                self._hang(future)

    def _hang(self, future: Future[None]) -> None:
        self._hangs = True
        log.warning("the disk does not answer: events go out before they are on record", path=str(self._path))
        future.add_done_callback(self._answers_again)

    def _answers_again(self, _future: Future[None]) -> None:
        self._hangs = False

    async def since(self, session: str, seq: int, limit: int) -> list[bytes]:
        """The events recorded after number `seq` of a session, those of later sessions too; all if it is unknown.

        As JSON, a page of them. Everything written before this call is on disk when it returns.

        Raises:
            BusyError: too many ask at once.
            FocusdError: the disk does not answer, or refuses.
        """
        if self._reading >= _READING:
            raise BusyError(
                f"{_READING} requests for recorded events wait for the disk already; ask again in a second"
            )
        future: Future[list[bytes]] = Future()
        self._reading += 1
        try:
            self._queue.put_nowait((lambda db: _select(db, session, seq, limit), future))
            return await asyncio.wait_for(asyncio.wrap_future(future), _ANSWER_S)
        except (Full, TimeoutError, sqlite3.Error, OSError) as error:
            reason = str(error) or "the disk does not answer"
            raise FocusdError(f"{self._path}: the record of events cannot be read: {reason}") from error
        finally:
            self._reading -= 1

    def close(self) -> None:
        """Write what is waiting, within a few seconds."""
        with suppress(Full):
            self._queue.put(None, timeout=_ANSWER_S)
        self._thread.join(_ANSWER_S)

    def _work(self) -> None:
        database: sqlite3.Connection | None = None
        batch = self._batch()
        while batch:
            try:
                if database and not self._path.exists():  # its folder was removed, and what it holds with it
                    database.close()
                    database = None
                database = database or self._open()
                _run(database, batch)
                self._complains = True
            except (sqlite3.Error, OSError) as error:
                database = self._after(error, database)
                _refuse(batch, error)
            batch = self._batch()
        if database:
            database.close()

    def _batch(self) -> list[tuple[_Task, Future[Any]]]:
        """What is waiting, to be committed together; empty at the end."""
        batch = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch
        if batch:
            self._queue.put(None)  # the end comes after this batch
        return batch

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *_BESIDE):
            make_way(self._path.with_name(self._path.name + suffix))
        try:
            return _connected(self._path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._set_aside(error)
            return _connected(self._path)

    def _after(self, error: Exception, database: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """Report an error once until it has passed; the database to go on with, None: open it anew."""
        if self._complains:
            log.warning("the record of events cannot be written", path=str(self._path), reason=str(error))
            self._complains = False
        if database is None or isinstance(error, sqlite3.OperationalError):
            return database
        database.close()
        with suppress(OSError):
            self._set_aside(error)
        return None

    def _set_aside(self, error: Exception) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        aside = self._path.with_name(f"{self._path.name}.corrupt-{stamp}")
        self._path.rename(aside)
        for suffix in _BESIDE:
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        log.warning("a corrupt record of events was set aside", path=str(aside), reason=str(error))

    def _insert(self, database: sqlite3.Connection, event: Event, body: str) -> None:
        row = (event["session"], event["seq"], body)
        database.execute("INSERT OR IGNORE INTO events (session, seq, body) VALUES (?, ?, ?)", row)
        self._written += 1
        if self._written % _PRUNE_EVERY == 0:
            database.execute("DELETE FROM events WHERE id <= (SELECT MAX(id) FROM events) - ?", (self._kept,))


@contextmanager
def recorded(bus: EventBus, path: Path) -> Iterator[Record]:
    """A record of all events published inside the `with`."""
    record = Record(path)
    try:
        with bus.subscribed(record.write):
            yield record
    finally:
        record.close()


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    try:
        path.chmod(0o600)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SCHEMA)
        database.execute("SELECT body FROM events ORDER BY id DESC LIMIT 1").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _run(database: sqlite3.Connection, batch: list[tuple[_Task, Future[Any]]]) -> None:
    """One transaction; those who wait are answered once it is committed."""
    with database:
        database.execute("BEGIN")
        answers = [None if future.cancelled() else task(database) for task, future in batch]
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.set_running_or_notify_cancel():
            future.set_result(answer)


def _refuse(batch: list[tuple[_Task, Future[Any]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done() and future.set_running_or_notify_cancel():
            future.set_exception(error)


def _select(database: sqlite3.Connection, session: str, seq: int, limit: int) -> list[bytes]:
    last = _id_of(
        database, "SELECT id FROM events WHERE session = ? AND seq <= ? ORDER BY seq DESC", session, seq
    )
    if last is None:  # an unknown session, or one whose beginning is wanted
        first = _id_of(database, "SELECT id FROM events WHERE session = ? ORDER BY seq", session)
        last = 0 if first is None else first - 1
    rows = database.execute("SELECT body FROM events WHERE id > ? ORDER BY id LIMIT ?", (last, limit))
    return one_page(body.encode() for (body,) in rows)


def _id_of(database: sqlite3.Connection, query: str, *given: Any) -> int | None:
    """The first row's id, found in the index: a session may have 200,000 rows."""
    row = database.execute(f"{query} LIMIT 1", given).fetchone()
    return row[0] if row else None
