"""The shipped network, and a frame for it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focusd.sharpness.scorer import Scorer
from focusd.sharpness.weights import Model, load_model
from tests.sharpness.scenes import DEFOCUS_UM, INSTRUMENT, frame


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> Model:
    """The shipped network."""
    return load_model()


@pytest.fixture(scope="session")
def scorer(model: Model) -> Scorer:
    """For the instrument of the scenes, whose sampling needs no resampling."""
    return Scorer(model, INSTRUMENT.sampling)


@pytest.fixture(scope="session")
def defocused() -> NDArray[np.uint16]:
    """A frame of 512×512."""
    return frame("print", DEFOCUS_UM)
