"""The six classical focus measures that DeepFocus is compared with: what a user would run today.

Each takes an image (y, x) of counts, float or unsigned, of any size, and returns a float: larger is sharper.
All work on the image divided by its mean, so that the camera's gain and the lamp do not change the value. A
camera's offset does: take it off first where that matters. A constant image and one without light (a mean
of 0 or below) give 0. An image that is not 2-D, is empty or has a NaN or an infinity raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pywt
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[Any]
_Relative = NDArray[np.float64]

_HIGH_PASS_SIGMA_PX = 2.0

_EDGE_LEVELS = 3
_EDGE_BLOCK_PX = 2**_EDGE_LEVELS
_EDGE_FRACTION = 0.1

_SPARSE_WAVELET = "sym4"
_SPARSE_LEVELS = 4
_SPARSE_FRACTION = 0.01


def high_pass_energy(image: Image) -> float:
    """HPF: energy of what a low-pass filter takes away, mean (I − G∗I)² / mean(I)², G a Gaussian of 2 px.

    Source: L. Firestone et al., "Comparison of autofocus methods for automated microscopy", Cytometry 12
    (1991) 195, the high-pass members of that family.
    """
    relative = _relative(image)
    detail = relative - ndimage.gaussian_filter(relative, _HIGH_PASS_SIGMA_PX, truncate=3.0)
    return float(np.mean(detail**2))


def laplacian_variance(image: Image) -> float:
    """LAPV: variance of the five-point Laplacian, var(∇²I) / mean(I)².

    Source: J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study",
    ICPR 2000, vol. 3, 314.
    """
    return float(np.var(ndimage.laplace(_relative(image), mode="nearest")))


def modified_laplacian(image: Image) -> float:
    """SML: mean of |∂²I/∂y²| + |∂²I/∂x²| over mean(I), so that opposite curvatures cannot cancel.

    The mean stands for the sum, so that images of different sizes compare; step 1 px, no threshold.

    Source: S. K. Nayar and Y. Nakagawa, "Shape from focus", IEEE Trans. Pattern Anal. Mach. Intell. 16
    (1994) 824.
    """
    relative = _relative(image)
    curvatures = (ndimage.correlate1d(relative, [1.0, -2.0, 1.0], axis, mode="nearest") for axis in (0, 1))
    return float(sum(np.mean(np.abs(curvature)) for curvature in curvatures))


def tenengrad(image: Image) -> float:
    """Tenengrad: mean squared gradient by the Sobel operator, mean(Sy² + Sx²) / mean(I)², no threshold.

    Sources: J. M. Tenenbaum, "Accommodation in computer vision", PhD thesis, Stanford 1970; E. Krotkov,
    "Focusing", Int. J. Comput. Vis. 1 (1987) 223.
    """
    relative = _relative(image)
    gradients = (ndimage.sobel(relative, axis, mode="nearest") for axis in (0, 1))
    return float(sum(np.mean(gradient**2) for gradient in gradients))


def edge_wavelet(image: Image) -> float:
    """EWC: energy of the finest wavelet coefficients at the edges, mean E₁² over the edges / mean(I)².

    E_i is the largest edge strength √(H² + V² + D²) of level i of a Haar transform in each block of 8×8 px.
    A sharp edge is strong at each level, a blurred one has lost its E₁ and kept its E₃; so the edges are the
    tenth of the blocks with the largest E₃. The source counts the edges whose E₁ passes a fixed number of
    grey levels. That count is 0 in faint images, 1 in noise and flat in between: no function to search on.

    Source: H. Tong, M. Li, H. Zhang, C. Zhang, "Blur detection for digital images using wavelet transform",
    ICME 2004, 17.
    """
    fine, coarse = _edge_strengths(_relative(image))
    kept = math.ceil(_EDGE_FRACTION * coarse.size)
    edges = np.argpartition(coarse, -kept)[-kept:]
    return float(np.mean(fine[edges] ** 2))


def wavelet_sparsity(image: Image) -> float:
    """WS: energy of the largest 1 % of the wavelet coefficients, per pixel and over mean(I)².

    In focus the detail is concentrated in few, large coefficients. The source uses Fresnelets on holograms,
    whose total energy is the same at each depth; in an ordinary image blur destroys the energy of the detail,
    so coefficients are plain wavelets' (symlets, four levels, approximation left out) and the energy is
    taken as it is, not as a share.

    Source: M. Liebling and M. Unser, "Autofocus for digital Fresnel holograms by use of a Fresnelet-sparsity
    criterion", J. Opt. Soc. Am. A 21 (2004) 2424.
    """
    relative = _relative(image)
    approximation, energies = relative, []
    for _ in range(_SPARSE_LEVELS):
        approximation, details = pywt.dwt2(approximation, _SPARSE_WAVELET)
        energies += [np.square(band).ravel() for band in details]
    kept = math.ceil(_SPARSE_FRACTION * relative.size)
    return float(np.partition(np.concatenate(energies), -kept)[-kept:].sum() / relative.size)


MEASURES: Mapping[str, Callable[[Image], float]] = MappingProxyType(
    {
        "hpf": high_pass_energy,
        "lapv": laplacian_variance,
        "sml": modified_laplacian,
        "tenengrad": tenengrad,
        "ewc": edge_wavelet,
        "ws": wavelet_sparsity,
    }
)
"""The measures by the names of the paper."""


def _relative(image: Image) -> _Relative:
    """The image over its mean, in double precision, so that no difference of unsigned counts wraps."""
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 2 or pixels.size == 0:
        raise ValueError(f"a focus measure needs a non-empty image (y, x), not one of shape {pixels.shape}")
    low, high, mean = pixels.min(), pixels.max(), pixels.mean()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("the image holds pixels that are not finite")
    nothing = mean <= 0 or low == high
    return np.zeros_like(pixels) if nothing else pixels / mean


def _edge_strengths(relative: _Relative) -> tuple[_Relative, _Relative]:
    """E₁ and E₃ of each 8×8 px block, (block,); the last rows and columns are repeated to fill the blocks."""
    missing = [(0, -length % _EDGE_BLOCK_PX) for length in relative.shape]
    _, coarsest, _, finest = pywt.wavedec2(np.pad(relative, missing, mode="edge"), "haar", level=_EDGE_LEVELS)
    return _block_maximum(_strength(finest), _EDGE_BLOCK_PX // 2), _strength(coarsest).ravel()


def _strength(bands: tuple[_Relative, _Relative, _Relative]) -> _Relative:
    """Edge strength √(H² + V² + D²)."""
    horizontal, vertical, diagonal = bands
    return np.sqrt(horizontal**2 + vertical**2 + diagonal**2)


def _block_maximum(values: _Relative, block: int) -> _Relative:
    """Maximum of each block×block square, row by row, (block,)."""
    rows, columns = (length // block for length in values.shape)
    maximum: _Relative = values.reshape(rows, block, columns, block).max(axis=(1, 3))
    return maximum.ravel()
