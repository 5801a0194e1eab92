"""Equality of samples, part by part."""

import torch

from focusd.training.synthesis import Samples


def same(one: Samples, two: Samples) -> bool:
    """Whether two lots of samples are equal to the bit."""
    mine = (one.views.pixels, one.views.spectra, one.views.contrast, one.b, one.structure)
    theirs = (two.views.pixels, two.views.spectra, two.views.contrast, two.b, two.structure)
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
