"""How far an image has moved from one frame to the next, on a microscope that shakes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

LEAST_GAIN = 0.05
"""By so much of itself the difference of two frames falls where they are aligned, or the image has not moved: of two
frames of noise alone, chance takes a hundredth."""
_FINEST = 20
"""Parts of a pixel."""


def aligned(image: Image, like: Image) -> tuple[Image, float]:
    """Move an image onto another one of the same scene.

    It is moved in Fourier space, which leaves the spectrum of its noise as it was.

    Returns:
        The image, and by how many pixels it was moved; unchanged and 0 where the two show no movement.
    """
    from scipy.ndimage import fourier_shift
    from skimage.registration import phase_cross_correlation

    window = np.outer(*(np.hanning(side).astype(np.float32) for side in like.shape))
    of_both = ((each - each.mean()) * window for each in (like, image))
    found: Any = phase_cross_correlation
    shift = np.asarray(found(*of_both, upsample_factor=_FINEST, normalization=None)[0])
    if not shift.any():
        return image, 0.0
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(image), shift)).real.astype(np.float32)
    apart, aligned_apart = (float((window * (each - like) ** 2).sum()) for each in (image, moved))
    if aligned_apart > (1 - LEAST_GAIN) * apart:
        return image, 0.0
    return moved, float(np.hypot(*shift))
