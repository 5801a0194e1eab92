"""Logging: a console for people, JSON lines for machines, warnings for subscribers as well.

structlog's and the standard library's records take the same path to stderr. A thread writes there: a stopped terminal,
or a pipe that nobody reads, must not stop the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Full, Queue
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from focusd.config import LogConfig
from focusd.daemon.events import EventBus
from focusd.terminal import printable

_FORWARDED = ("warning", "error", "critical")
_PYMMCORE_PLUS = {"PYMM_LOG_FILE": os.devnull, "PYMM_LOG_LEVEL": "CRITICAL"}
"""Read when it is imported: else it writes a file of its own, and its records to stderr a second time.

pymmcore-plus 0.18 takes its documented "0" for its default file, which a read-only home refuses.
"""
_QUEUED = 1000
"""Lines that wait for a slow terminal; more are lost."""
_FLUSH_S = 1.0
"""How long the end of the process waits for them."""
_sinks: list[Callable[[dict[str, Any]], None]] = []


class _Background(logging.Handler):
    """Writes lines to a stream in a thread of its own; whoever logs never waits for it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._queue: Queue[str | threading.Event | None] = Queue(_QUEUED)
        self._thread = threading.Thread(target=self._write, name="focusd-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record in line."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            with suppress(Full):
                self._queue.put_nowait(line)

    def flush(self) -> None:
        """Return when what was logged before is written, or cannot be for a while."""
        written = threading.Event()
        if self._thread.is_alive():
            with suppress(Full):
                self._queue.put_nowait(written)
                written.wait(_FLUSH_S)

    def close(self) -> None:
        """Write what is in line, and no more."""
        with suppress(Full):
            self._queue.put_nowait(None)
        super().close()

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                with suppress(OSError, ValueError):  # the terminal is gone, or the stream closed
                    self._stream.write(f"{item}\n")
                    self._stream.flush()


def configure_logging(config: LogConfig) -> None:
    """Set up logging for the whole process. May be called again."""
    stamped: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*stamped, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    os.environ.update(_PYMMCORE_PLUS)
    handler = _Background(sys.stderr)
    handler.setLevel(config.level.upper())  # importing pymmcore-plus lowers the root logger's own level
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=stamped, processors=[remove_meta, _forward, *_renderers(config)]
        )
    )
    logging.basicConfig(handlers=[handler], level=config.level.upper(), force=True)


def _renderers(config: LogConfig) -> list[Processor]:
    people = sys.stderr.isatty() if config.format == "auto" else config.format == "console"
    if people:
        return [_harmless, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _harmless(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    """Nothing of a record is obeyed by a terminal: a client's name or a device's message may hold anything."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in record.items()}


def _forward(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    if record.get("level") in _FORWARDED:
        # A traceback is for the log alone: subscribers get what happened.
        shown = {key: _plain(value) for key, value in record.items() if key not in ("exc_info", "timestamp")}
        for sink in tuple(_sinks):
            sink(shown)
    return record


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else str(value)


@contextmanager
def forward_to(bus: EventBus) -> Iterator[None]:
    """Publish records of warning and above as topic `log` inside the `with`; call it in the event loop.

    Records may come from any thread; the bus hears of them in the event loop.
    """
    loop = asyncio.get_running_loop()

    def sink(record: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the loop has ended; stderr has the record
            loop.call_soon_threadsafe(bus.publish, "log", record)

    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)
