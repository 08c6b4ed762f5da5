# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Square images cut into equal tiles, so that a small defect covers more patches; pure functions.

anomalib's ``Tiler`` can overlap, but fills buffers in a loop; these only reshape, and so export with any batch.
"""

import math

import torch


def check_tiles(tiles: int) -> int:
    """Return how many tiles lie side by side.

    Raises:
        ValueError: If it is not a positive integer.
    """
    if not isinstance(tiles, int) or isinstance(tiles, bool) or tiles < 1:
        msg = f"tiles={tiles!r} must be 1 (whole images) or how many tiles lie side by side, such as 2 for 2 x 2."
        raise ValueError(msg)
    return tiles


def cut(images: torch.Tensor, tiles: int) -> torch.Tensor:
    """Cut images into T x T tiles.

    Args:
        images (torch.Tensor): (N, C, T*S, T*S).
        tiles (int): T.

    Returns:
        torch.Tensor: (N*T*T, C, S, S), all tiles of the first image first, row by row.

    Example:
        >>> cut(torch.arange(16).view(1, 1, 4, 4), 2)[1]
        tensor([[[2, 3],
                 [6, 7]]])
    """
    if tiles == 1:
        return images
    channels, side = images.shape[1], images.shape[2] // tiles
    rows = images.reshape(-1, channels, tiles, side, tiles, side)  # (N, C, T, S, T, S)
    return rows.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)  # (N*T*T, C, S, S)


def join(patches: torch.Tensor, tiles: int) -> torch.Tensor:
    """Put the patches of tiles together, in the order that :func:`cut` has made.

    Args:
        patches (torch.Tensor): One value a patch, each tile row by row, (N*T*T, g*g).
        tiles (int): T.

    Returns:
        torch.Tensor: Of whole images, row by row, (N, T*g*T*g).

    Example:
        >>> join(torch.tensor([[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]), 2)
        tensor([[ 1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16]])
    """
    if tiles == 1:
        return patches
    side = math.isqrt(patches.shape[1])
    grid = patches.reshape(-1, tiles, tiles, side, side)  # (N, T, T, g, g)
    return grid.permute(0, 1, 3, 2, 4).reshape(-1, (tiles * side) ** 2)  # (N, T*g*T*g)


def worst(scores: torch.Tensor, tiles: int) -> torch.Tensor:
    """Largest score of each image's tiles.

    Args:
        scores (torch.Tensor): Of tiles, (N*T*T,).
        tiles (int): T.

    Returns:
        torch.Tensor: Of images, (N,).
    """
    return scores if tiles == 1 else scores.reshape(-1, tiles * tiles).amax(dim=1)  # (N,)
