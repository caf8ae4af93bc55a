"""A VGG-16-BN in miniature, for patches of about 32 pixels on a processor without accelerator."""

import torch
from torch import nn

from methods.backbones import plain
from methods.backbones.dropout import Dropout


class SmallVGG(plain.Plain):
    """The shape of VGG-16 with batch normalisation, small enough for thousands of images per second.

    `features`: convolution, batch normalisation, ReLU, and max-pooling between the stages; `classifier`: two linear
    layers with ReLU and dropout. The output lacks the ReLU that follows the last linear layer, because deep
    clustering groups the activations before it; heads apply that ReLU themselves.

    float [B, 2, H, W] (Sobel) -> [B, 256].
    """

    feature_dim = 256

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2
        for width in (16, 32, 64, 128):
            if layers:
                layers.append(nn.MaxPool2d(2))
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
            nn.Linear(4 * channels, 512), nn.ReLU(inplace=True), Dropout(dropout), nn.Linear(512, self.feature_dim)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        # Channels last halves the time of a step on a processor.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.contiguous(memory_format=torch.channels_last))


build, stages = SmallVGG, plain.stages
