"""focusd inside a program on pymmcore-plus: the autofocus device of a core that the program has opened."""

from focusd.embedded.attached import Attached, attach
from focusd.embedded.core import FocusLostError
from focusd.embedded.engine import FocusdEngine

__all__ = ["Attached", "FocusLostError", "FocusdEngine", "attach"]
