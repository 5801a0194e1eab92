"""Runs that a client drives with its own camera and stage: `for z_um in run: run.tell(snap(z_um))`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from focusd.errors import RequestError
from focusd.protocol.results import CalibrationResult, RefocusResult, RunAnswer

if TYPE_CHECKING:
    from focusd.client.client import AsyncClient, Client


class _Driven:
    """What both kinds of run know.

    Attributes:
        id: by which the daemon knows the run.
        expose_um: the planes to expose next, in this order; empty at the end.
    """

    def __init__(self, answer: RunAnswer) -> None:
        self.id = answer.run
        self._take(answer)

    def _take(self, answer: RunAnswer) -> None:
        self.expose_um = tuple(answer.expose_um)
        self._result = answer.result

    @property
    def result(self) -> RefocusResult | CalibrationResult:
        """What the run found.

        Raises:
            RequestError: it has not ended.
        """
        if self._result is None:
            raise RequestError(f"the run has not ended: it wants z = {self.expose_um} µm exposed next")
        return self._result

    def _told(self, pixels: Any, z_um: float | None, full_scale: int | None) -> dict[str, Any]:
        if z_um is None:
            if not self.expose_um:
                raise RequestError("the run has ended: ask for another one")
            z_um = self.expose_um[0]
        return {"run": self.id, "frames": [pixels], "z_um": [float(z_um)], "full_scale": full_scale}


class DrivenRun(_Driven):
    """A run of a `Client`; iterating yields the z to expose next, until the run has ended."""

    def __init__(self, client: Client, answer: RunAnswer) -> None:
        super().__init__(answer)
        self._client = client

    def __iter__(self) -> Iterator[float]:
        while self.expose_um:
            yield self.expose_um[0]

    def tell(self, pixels: Any, z_um: float | None = None, full_scale: int | None = None) -> None:
        """Tell the run what was exposed.

        Args:
            pixels: (y, x) array of uint8 or uint16, or whatever shows such memory.
            z_um: where your stage stood, read back; None: exactly where it was asked for.
            full_scale: largest value that a pixel can have; None: that of its type.

        Raises:
            FocusdError: with which the run ends.
        """
        self._take(self._client._tell(**self._told(pixels, z_um, full_scale)))

    def drop(self) -> None:
        """Give the run up."""
        self._client._drop(self.id)


class AsyncDrivenRun(_Driven):
    """A run of an `AsyncClient`: `async for z_um in run: await run.tell(await snap(z_um))`."""

    def __init__(self, client: AsyncClient, answer: RunAnswer) -> None:
        super().__init__(answer)
        self._client = client

    async def __aiter__(self) -> AsyncIterator[float]:
        while self.expose_um:
            yield self.expose_um[0]

    async def tell(self, pixels: Any, z_um: float | None = None, full_scale: int | None = None) -> None:
        """As `DrivenRun.tell`."""
        self._take(await self._client._tell(**self._told(pixels, z_um, full_scale)))

    async def drop(self) -> None:
        """Give the run up."""
        await self._client._drop(self.id)
