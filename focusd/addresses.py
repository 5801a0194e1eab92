"""The addresses at which a daemon listens unless its configuration names others."""

CONTROL = "tcp://127.0.0.1:5570"
"""Requests and their replies."""
EVENTS = "tcp://127.0.0.1:5571"
"""Published events."""
