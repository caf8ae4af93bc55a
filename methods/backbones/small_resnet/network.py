"""A residual network in miniature, for patches of 16 to 48 pixels on a processor without accelerator."""

import torch
from torch import nn
from torch.nn.functional import relu


class SmallResNet(nn.Module):
    """The shape of ResNet-18 (He et al. 2016) with one block a stage.

    float [B, 3, H, W] -> [B, feature_dim], averaged over the last map. The stem keeps the resolution and pools, as
    suits small images.
    """

    feature_dim = 128

    def __init__(self, *, zero_init_residual: bool = False):
        """zero_init_residual: see `methods.backbones.build`."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.Sequential(
            ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2), ResidualBlock(64, 128, 2)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock) and zero_init_residual:
                nn.init.zeros_(module.bn2.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.pool(relu(self.bn1(self.conv1(images.contiguous(memory_format=torch.channels_last))), inplace=True))
        return self.blocks(maps).mean((2, 3))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride > 1 or channels != width:
            convolution = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)), inplace=True)))
        return relu(branch + self.shortcut(x), inplace=True)


build, BLOCK = SmallResNet, ResidualBlock


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"layer{n}": block for n, block in enumerate(trunk.blocks, 1)}
