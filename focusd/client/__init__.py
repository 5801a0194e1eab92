"""A client of the daemon: light, without torch or Micro-Manager."""
