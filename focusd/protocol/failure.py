"""An error on the wire: encoded once, where it is caught, and decoded once, by whoever raises it again."""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import ConfigDict, Field

from focusd.errors import FocusdError, InternalError
from focusd.protocol.model import Result


class FailureData(Result):
    """What an error tells besides its message: what was measured, under names of its own, and what the error means."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    error_class: str = Field(alias="class")
    """Name of the class in `focusd.errors`."""
    outcome: str
    """One word for a table: how the operation has ended."""
    retryable: bool
    """Whether the same request may succeed later, as it is."""


class Failure(Result):
    """An error of JSON-RPC 2.0."""

    code: int
    message: str
    """What happened and what to do about it."""
    data: FailureData

    @classmethod
    def of(cls, error: Exception, **more: Any) -> Self:
        """Encode an exception; one that is no FocusdError becomes an InternalError.

        Args:
            more: goes into `data` besides what the error holds.
        """
        if not isinstance(error, FocusdError):
            error = InternalError.of(error)
        known = {"class": type(error).__name__} | error.data | more
        data = FailureData(**known | {"outcome": error.outcome, "retryable": error.retryable})
        return cls(code=error.code, message=error.message, data=data)

    def error(self) -> FocusdError:
        """Decode: the same class, message, code, outcome and data.

        An error of a class that is not known here, as of a newer daemon's, becomes one of the class that has its code,
        or a plain FocusdError. Encoding it again loses nothing.
        """
        kinds = list(_kinds(FocusdError))
        named = [kind for kind in kinds if kind.__name__ == self.data.error_class]
        coded = [kind for kind in kinds if kind.code == self.code]
        error = (named or coded or kinds)[0](self.message)
        error.data = self.data.model_dump()
        error.code, error.outcome, error.retryable = self.code, self.data.outcome, self.data.retryable
        return error


def _kinds(kind: type[FocusdError]) -> Iterator[type[FocusdError]]:
    """A class and all that derive from it, however far."""
    yield kind
    for derived in kind.__subclasses__():
        yield from _kinds(derived)
