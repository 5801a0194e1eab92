"""The shipped network, and a frame for it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import Model, load_model
from tests.scoring.scenes import DEFOCUS_UM, INSTRUMENT, frame


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
