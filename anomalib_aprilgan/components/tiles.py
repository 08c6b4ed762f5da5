# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Square images cut into equal tiles, so that a small defect covers more patches; pure functions.

anomalib's ``Tiler`` can overlap, but fills buffers in a loop; these only reshape, and so export with any batch.
"""

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


def join(maps: torch.Tensor, tiles: int) -> torch.Tensor:
    """Put maps of tiles together, the reverse of :func:`cut`.

    Args:
        maps (torch.Tensor): (N*T*T, L, S, S).
        tiles (int): T.

    Returns:
        torch.Tensor: (N, L, T*S, T*S).
    """
    if tiles == 1:
        return maps
    layers, side = maps.shape[1], maps.shape[2]
    grid = maps.reshape(-1, tiles, tiles, layers, side, side)  # (N, T, T, L, S, S)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, layers, tiles * side, tiles * side)  # (N, L, T*S, T*S)


def largest(scores: torch.Tensor, tiles: int) -> torch.Tensor:
    """Scores of tiles, (N*T*T,), as scores of images, (N,): an image is as anomalous as its worst tile."""
    return scores if tiles == 1 else scores.reshape(-1, tiles * tiles).amax(dim=1)  # (N,)
