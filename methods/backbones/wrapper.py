"""What every trainer holds: input filter and trunk."""

import torch
from torch import nn


class Backbone(nn.Module):
    """Images [B, C, H, W], uint8 or normalised float, -> features [B, feature_dim], before the trunk's last ReLU where
    it ends with a linear layer (VGG, AlexNet)."""

    def __init__(self, trunk: nn.Module, filter: nn.Module):
        """`filter` makes what the trunk takes of the images: `SobelInput` or `ColourInput`."""
        super().__init__()
        self.input = filter
        self.trunk = trunk
        self.feature_dim: int = trunk.feature_dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(self.input(images))
