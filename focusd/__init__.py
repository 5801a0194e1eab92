"""focusd keeps a microscope in focus from its ordinary camera images."""

__version__ = "0.1.0"
