"""ResNets, ResNet-50 at the widths of the papers, too: torchvision's modules under torchvision's names."""

import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

BLOCK = (BasicBlock, Bottleneck)
LOAD = {f"resnet50_w{width}": f"{__name__}.ResNet50(width={width})" for width in (2, 4, 5)}
# Under the names of torchvision.models, too, whose networks are called the same and have a classifier `fc` beside.
PUBLISHED = ("resnet18", "resnet34", "resnet50", "resnext101_32x8d")
LOAD |= {name: f"timm.create_model('{name}', num_classes=0)" for name in PUBLISHED}
# lightly keeps a ResNet as a row of its children, of which those with parameters have these numbers.
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


class ResNet50(ResNet):
    """He et al. 2016, with `width` times the channels everywhere (Kolesnikov et al. 2019; w2 and w5 of SwAV, w4 of
    SimCLR and BYOL), without its classifier.

    float [B, 3, H, W] -> [B, 2048 width], averaged over the last map. torchvision's wide_resnet50_2 is another network:
    it widens the 3x3 convolutions alone. zero_init_residual: see `methods.backbones.build`.
    """

    def __init__(self, width: int = 1, *, zero_init_residual: bool = False):
        # The parent's constructor knows one width of the stem only. What its _make_layer reads is set here.
        nn.Module.__init__(self)
        self._norm_layer, self.groups, self.base_width, self.dilation = nn.BatchNorm2d, 1, 64, 1
        self.inplanes = 64 * width
        self.conv1 = nn.Conv2d(3, self.inplanes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(Bottleneck, 64 * width, 3)
        self.layer2 = self._make_layer(Bottleneck, 128 * width, 4, stride=2)
        self.layer3 = self._make_layer(Bottleneck, 256 * width, 6, stride=2)
        self.layer4 = self._make_layer(Bottleneck, 512 * width, 3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        self.feature_dim = 2048 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck) and zero_init_residual:
                nn.init.zeros_(module.bn3.weight)


def build(name: str, zero_init_residual: bool) -> nn.Module:
    """The trunk called `name`: float [B, 3, H, W] -> mean of the last map [B, feature_dim]."""
    if name.startswith("resnet50"):
        trunk = ResNet50(width=int(name.partition("_w")[2] or 1), zero_init_residual=zero_init_residual)
    else:
        trunk = get_model(name, zero_init_residual=zero_init_residual)
        trunk.feature_dim, trunk.fc = trunk.fc.in_features, nn.Identity()
    # What convolutions are fastest in, on GPUs with tensor cores and on processors.
    return trunk.to(memory_format=torch.channels_last)


def stages(trunk: nn.Module) -> dict[str, nn.Module]:
    return {f"layer{n}": getattr(trunk, f"layer{n}") for n in range(1, 5)}


def _as_children(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{CHILDREN[first]}.{rest}"


NAMES = (_as_children,)
