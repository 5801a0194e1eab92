"""How many threads torch computes with, without changing it for the rest of the process."""

from __future__ import annotations

import threading

import torch


def compute_alone() -> None:
    """Let torch compute with the calling thread alone, whatever the number of the others is.

    torch sets the number of the calling thread, and of those that will first use it later, at once; so another thread
    sets the latter back.
    """
    others = torch.get_num_threads()
    if others > 1:
        torch.set_num_threads(1)
        restoring = threading.Thread(target=torch.set_num_threads, args=(others,), name="focusd-torch")
        restoring.start()
        restoring.join()
