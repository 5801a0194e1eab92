"""Which tiles of a frame are scored: all of them, or a bounded number of those that show most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from focusd.scoring.spectra import Region
from focusd.scoring.views import BINNINGS, TILE_PX, tile_starts


@dataclass(frozen=True)
class Tiles:
    """First pixels (rows, columns) of tiles, in the resampled frame."""

    y: Tensor
    x: Tensor


def tile_grid(region: Region, factor: float) -> Tiles:
    """All tiles of a region of the frame, whose axes were scaled by a factor."""
    y, x, height, width = (round(value * factor) for value in region)
    rows = torch.tensor([y + start for start in tile_starts(height)])
    columns = torch.tensor([x + start for start in tile_starts(width)])
    return Tiles(*torch.meshgrid(rows, columns, indexing="ij"))


def informative(tiles: Tiles, coarse: Tensor, most: int | None) -> Tiles:
    """At most so many of the tiles, still spread over the field: of each cell of a grid the one of most contrast.

    So a bead in an empty field is looked at, and so is the far side of a tilted one.

    Args:
        coarse: the frame at the last of the `BINNINGS`.
        most: None: all.
    """
    if most is None or tiles.y.numel() <= most:
        return tiles
    contrast = _contrast(tiles, coarse)
    rows, columns = _cells(tiles.y.shape, most)
    chosen = [[_best(contrast, r, c) for c in columns] for r in rows]
    index = torch.tensor(chosen)
    return Tiles(tiles.y.flatten()[index], tiles.x.flatten()[index])


def _cells(shape: torch.Size, most: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows and columns of the grid in groups, as square as they can be."""
    rows = max(1, min(shape[0], math.isqrt(most * shape[0] // shape[1])))
    columns = min(shape[1], most // rows)
    rows = min(shape[0], most // columns)
    groups = (np.array_split(np.arange(n), k) for n, k in zip(shape, (rows, columns), strict=True))
    by_row, by_column = ([part.tolist() for part in parts] for parts in groups)
    return by_row, by_column


def _best(contrast: Tensor, rows: list[int], columns: list[int]) -> int:
    """Index into the flat grid of the cell's tile of most contrast."""
    cell = contrast[rows][:, columns]
    row, column = divmod(int(cell.argmax()), len(columns))
    return rows[row] * contrast.shape[1] + columns[column]


def _contrast(tiles: Tiles, coarse: Tensor) -> Tensor:
    """SD over the mean, (rows, columns), of each tile: what is left of it without the noise of single pixels."""
    binning = BINNINGS[-1]
    side = TILE_PX // binning
    first = [
        (start // binning).clamp(0, extent - side)
        for start, extent in zip((tiles.y, tiles.x), coarse.shape, strict=True)
    ]
    windows = coarse.unfold(0, side, 1).unfold(1, side, 1)[
        first[0].to(coarse.device), first[1].to(coarse.device)
    ]
    mean = windows.mean((-2, -1), keepdim=True)
    deviation = (windows - mean).square_().mean((-2, -1)).sqrt()  # `std` takes seven times as long
    return (deviation / (mean[..., 0, 0].abs() + 1e-6)).cpu()
