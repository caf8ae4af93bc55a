"""What every trainer holds: input filter and trunk."""

import torch
from torch import nn

from methods.backbones.sobel import SobelInput


class Backbone(nn.Module):
    """uint8 [B, C, H, W] -> [B, feature_dim], before the trunk's last ReLU."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.input = SobelInput()
        self.trunk = trunk
        self.feature_dim: int = trunk.feature_dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(self.input(images))
