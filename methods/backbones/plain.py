"""What the convolutional networks without residual blocks share: AlexNet and VGG, large and small."""

import torch
from torch import nn


class Plain(nn.Module):
    """`features`, convolutions; `avgpool` to a fixed size; `classifier`, linear layers up to one before its ReLU."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def stages(trunk: Plain) -> dict[str, nn.Module]:
    """As the papers count: what a convolution gives after its ReLU, and the output."""
    after = [module for module in trunk.features if isinstance(module, nn.ReLU)]
    return {**{f"conv{n}": module for n, module in enumerate(after, 1)}, "fc": trunk.classifier}
