"""VGG-16 with batch normalisation on Sobel input: torchvision's modules under torchvision's names."""

import torch
from torch import nn
from torchvision.models import vgg16_bn

from methods.backbones import plain
from methods.backbones.dropout import Dropout


class VGG16(plain.Plain):
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


build, stages = VGG16, plain.stages
LOAD = "torchvision.models.vgg16_bn()"
PADDING = (
    "features.0.weight has a third input channel of zeros: feed (sobel x, sobel y, 0). classifier.6 is untrained and "
    "zero; classifier.3 gives the 4096 features before their ReLU"
)

UNUSED = r"^classifier\.6\."  # the last layer, of classes


def exported(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Input padded to 3 channels, last layer of zeros."""
    first = state["features.0.weight"]  # [64, 2, 3, 3]
    return {
        **state,
        "features.0.weight": torch.cat([first, torch.zeros_like(first[:, :1])], dim=1),
        "classifier.6.weight": torch.zeros(1000, 4096),
        "classifier.6.bias": torch.zeros(1000),
    }


def imported(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The way back."""
    state = {key: value for key, value in state.items() if not key.startswith("classifier.6.")}
    return {**state, "features.0.weight": state["features.0.weight"][:, :2].contiguous()}
