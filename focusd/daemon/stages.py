"""Stages that run at once: what one raises cancels the others and is raised as itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup


@asynccontextmanager
async def stages() -> AsyncIterator[TaskGroup]:
    """A task group that raises the first error of its tasks, not a group of them."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    # Where the tasks have ended by being cancelled before they were waited for, nothing has been raised yet.
    await anyio.lowlevel.checkpoint_if_cancelled()


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error inside nested groups: task groups wrap what they raise."""
    error = errors.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
