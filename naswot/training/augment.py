"""Random changes of a batch of images, all of them drawn at once.

Papers: DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017, arXiv:1708.04552;
crops and flips are those of He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385. Original code:
github.com/uoguelph-mlrg/Cutout. Differences: whole batches of normalised images, so zeros are the mean colour.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from naswot.training.recipe import TrainingRecipe


def augment(images: Tensor, recipe: TrainingRecipe, *, generator: torch.Generator) -> Tensor:
    """Crop, flip and cut out as a recipe says; ``images`` themselves where it says nothing.

    Args:
        images: (N, C, H, W), normalised.
        recipe: its ``crop_padding``, ``flip`` and ``cutout``.
        generator: on the CPU; where the draws come from.
    Returns:
        (N, C, H, W).
    """
    if recipe.crop_padding:
        images = random_crop(images, recipe.crop_padding, generator=generator)
    if recipe.flip:
        images = random_flip(images, generator=generator)
    if recipe.cutout:
        images = cutout(images, recipe.cutout, generator=generator)
    return images


def random_crop(images: Tensor, padding: int, *, generator: torch.Generator) -> Tensor:
    """Windows of the images' own size out of images with ``padding`` zeros on each side, (N, C, H, W)."""
    n, _, height, width = images.shape
    corners = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    rows = (corners[0] + torch.arange(height)).to(images.device)
    columns = (corners[1] + torch.arange(width)).to(images.device)
    padded = F.pad(images, (padding, padding, padding, padding)).movedim(1, -1)
    image = torch.arange(n, device=images.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def random_flip(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2, (N, C, H, W)."""
    flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(flipped.to(images.device), images.flip(-1), images)


def cutout(images: Tensor, side: int, *, generator: torch.Generator) -> Tensor:
    """Zeros in a square of each image; its centre is any pixel alike, what lies outside the image is lost.

    Args:
        images: (N, C, H, W).
        side: height and width of the square in pixels; it goes from ``side // 2`` before the centre on.
        generator: on the CPU; where the centres come from.
    Returns:
        (N, C, H, W).
    """
    n, _, height, width = images.shape
    hit = []
    for length in (height, width):
        first = torch.randint(0, length, (n, 1), generator=generator) - side // 2
        place = torch.arange(length)
        hit.append((place >= first) & (place < first + side))
    square = hit[0][:, None, :, None] & hit[1][:, None, None, :]
    return images.masked_fill(square.to(images.device), 0.0)
