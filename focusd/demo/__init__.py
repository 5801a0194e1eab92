"""`focusd demo`: the main job from a user's side: a daemon in one process, its client in another."""

from focusd.demo.main import run_demo

__all__ = ["run_demo"]
