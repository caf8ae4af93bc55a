"""VGG-16 with batch normalisation on Sobel input: torchvision's modules under torchvision's names."""

import torch
from torch import nn
from torchvision.models import vgg16_bn

from methods.backbones.dropout import Dropout


class VGG16(nn.Module):
    """Simonyan & Zisserman 2014, configuration D, up to the second fully connected layer before its ReLU.

    float [B, 2, H, W] (Sobel) -> [B, 4096]. The parameters carry torchvision's names, so that an export loads there.
    """

    feature_dim = 4096

    def __init__(self, dropout: float = 0.5):
        super().__init__()
        model = vgg16_bn(weights=None, dropout=dropout)
        first = model.features[0]
        model.features[0] = nn.Conv2d(2, first.out_channels, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(model.features[0].weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(model.features[0].bias)
        self.features, self.avgpool, self.classifier = model.features, model.avgpool, model.classifier[:4]
        self.classifier[2] = Dropout(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))
