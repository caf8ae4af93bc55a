"""Colour input: the normalisation that networks on ImageNet are trained with."""

import torch
from torch import nn

from methods.backbones.spec import GREY_MEAN, GREY_STD, RGB_MEAN, RGB_STD


class ColourInput(nn.Module):
    """[B, C, H, W] -> float [B, 3, H, W] of mean 0 and spread 1 over ImageNet; one channel stands for all three.

    uint8 is normalised here; float is taken to be so already, 3 channels by RGB_MEAN and RGB_STD, 1 by GREY_MEAN and
    GREY_STD. Nothing here is trained or saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(RGB_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.uint8:
            return (images.float() - 255 * self.mean) / (255 * self.std)
        if images.shape[1] == 1:
            return (images * GREY_STD + GREY_MEAN - self.mean) / self.std
        return images
