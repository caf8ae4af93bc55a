"""A VGG-16-BN in miniature, for patches of about 32 pixels on a processor without accelerator."""

import torch
from torch import nn

from methods.backbones.dropout import Dropout


class SmallVGG(nn.Module):
    """The shape of VGG-16 with batch normalisation, small enough for thousands of images per second.

    `features`: convolution, batch normalisation, ReLU, and max-pooling between the stages; `classifier`: two linear
    layers with ReLU and dropout. The output lacks the ReLU that follows the last linear layer, because deep
    clustering groups the activations before it; heads apply that ReLU themselves.
    """

    def __init__(
        self,
        in_channels: int = 2,
        stages: tuple[tuple[int, ...], ...] = ((16,), (32,), (64,), (128,)),
        hidden: int = 512,
        feature_dim: int = 256,
        dropout: float = 0.0,
    ):
        """in_channels: 2 for a Sobel-filtered grey image; stages: widths of the convolutions, with pooling in between.

        feature_dim: size of the output.
        """
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for number, widths in enumerate(stages):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
        self.features = nn.Sequential(*layers)
        # Fixed size whatever the size of the input, as in torchvision's VGG.
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(4 * channels, hidden), nn.ReLU(inplace=True), Dropout(dropout), nn.Linear(hidden, feature_dim)
        )
        self.feature_dim = feature_dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        # Channels last halves the time of a step on a processor.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, in_channels, H, W] float -> [B, feature_dim], before the last ReLU."""
        return self.classifier(self.pooled(images))

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """[B, in_channels, H, W] float -> [B, 4 * last width]: convolutional features averaged over 2 x 2 cells."""
        maps = self.features(images.contiguous(memory_format=torch.channels_last))
        return self.avgpool(maps).flatten(1)
