"""The PSF against psfmodels' Gibson-Lanni integral, an independent implementation.

Equal refractive indices throughout leave no aberration. psfmodels computes the radial integral at multiples
of the pixel and interpolates linearly in between, so the row and the column through the axis are compared,
where nothing is interpolated, with one sample a pixel (zero corrupts its heap). Both are scalar, without
apodisation and exact in the defocus, so they agree at high apertures too: 1e-4 of the peak was seen.
"""

import numpy as np
import psfmodels
import pytest
import torch

from focusd.optics.psf import intensity_psf

SPACING = 0.2  # λ/NA
DEFOCUS = np.array([-4.0, -2.5, -1.0, 0.0, 0.5, 2.0, 3.0])  # axial units


def reference(na: float, index: float, wavelength_um: float) -> np.ndarray:
    """(z, y, x), 31 pixels wide."""
    planes = psfmodels.make_psf(
        (DEFOCUS * wavelength_um * index / na**2).tolist(),
        31,
        dxy=SPACING * wavelength_um / na,
        NA=na,
        wvl=wavelength_um,
        ns=index,
        ni=index,
        ni0=index,
        ng=index,
        ng0=index,
        oversample_factor=1,
        normalize=False,
        model="scalar",
    )
    return np.asarray(planes)


@pytest.mark.parametrize(
    ("na", "index", "wavelength_um"),
    [(0.1, 1.0, 0.45), (0.3, 1.0, 0.55), (0.8, 1.33, 0.5), (1.2, 1.515, 0.6)],
)
def test_lateral_and_axial_profiles_agree(na: float, index: float, wavelength_um: float) -> None:
    u = torch.from_numpy(DEFOCUS)
    ours = intensity_psf(u, torch.full_like(u, na / index), torch.full_like(u, SPACING), 512)
    seen = torch.fft.fftshift(ours, dim=(-2, -1))[:, 241:272, 241:272].numpy()
    theirs = reference(na, index, wavelength_um)
    focus = int(np.flatnonzero(DEFOCUS == 0)[0])
    seen, theirs = (stack / stack[focus, 15, 15] for stack in (seen, theirs))
    np.testing.assert_allclose(seen[:, 15, :], theirs[:, 15, :], atol=3e-4)
    np.testing.assert_allclose(seen[:, :, 15], theirs[:, :, 15], atol=3e-4)
