"""A fully convolutional network on a backbone: torchvision's, whose backbone and classifier are given."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.segmentation import FCN

from methods import backbones
from methods.evals.segmentation.spec import Segmentation

PROBE = 64  # pixels a side of the image that tells a backbone's stride


def build(name: str, backbone: nn.Module, classes: int, settings: Segmentation, seed: int) -> FCN:
    """images [B, C, H, W] -> {"out": logits float [B, classes, H, W]}, enlarged from the last map bilinearly.

    backbone: of `backbones.build(name)`; it is copied, and all of the copy is to be trained. What the classifier begins
    with is drawn as torch does, by `seed`. Raises ValueError for a backbone whose stages cannot have the stride.
    """
    body = Body(name, copy.deepcopy(backbone).requires_grad_(True), settings.stride)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = head(body.width, classes, settings)
    device = next(backbone.parameters()).device
    return FCN(body, classifier.to(device=device, memory_format=torch.channels_last))


def head(width: int, classes: int, settings: Segmentation) -> nn.Sequential:
    """float [B, width, h, w] -> logits [B, classes, h, w]: 3 x 3 convolutions with batch statistics and ReLU, then one
    of 1 x 1 (He et al. 2020, appendix). With one of no dilation it is torchvision's FCNHead but for its dropout."""
    rows: list[nn.Module] = []
    for _ in range(settings.convolutions):
        around = settings.dilation
        convolution = nn.Conv2d(width, settings.channels, 3, padding=around, dilation=around, bias=False)
        rows += [convolution, nn.BatchNorm2d(settings.channels), nn.ReLU(inplace=True)]
        width = settings.channels
    return nn.Sequential(*rows, PixelClassifier(width, classes, 1))


class PixelClassifier(nn.Conv2d):
    """One of float32 whatever the precision: in bf16 the largest of some logits would often be the largest twice."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


class Body(nn.Module):
    """images -> {"out": the last map}, a place of which stands for `stride` pixels a side or fewer."""

    def __init__(self, name: str, backbone: nn.Module, stride: int):
        super().__init__()
        self._name, self.backbone = name, backbone
        stages = self._stages()
        self.width, now = self._measured()
        first = len(stages)  # of those that keep the resolution of what they are given
        while now > stride and first:
            first -= 1
            now //= _stride(stages[first])
        if now > stride:
            raise ValueError(f"{name} has no stride of {stride}: its stages leave {now}")
        dilate(stages[first:])

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        caught: list[torch.Tensor] = []
        hook = self._stages()[-1].register_forward_hook(lambda _module, _given, output: caught.append(output))
        try:
            self.backbone(images)
        finally:
            hook.remove()
        return {"out": caught[0]}

    def _stages(self) -> list[nn.Module]:
        return list(backbones.network(self._name).stages(self.backbone.trunk).values())

    @torch.no_grad()
    def _measured(self) -> tuple[int, int]:
        """(channels of the last map, its stride)."""
        device = next(self.backbone.parameters()).device
        training = self.backbone.training
        out = self.eval()(torch.zeros(1, 3, PROBE, PROBE, device=device))["out"]
        self.train(training)
        return out.shape[1], PROBE // out.shape[2]


def dilate(stages: Sequence[nn.Module]) -> None:
    """Have neighbouring stages keep the resolution of what they are given. Where a convolution has no stride any more,
    all that follow it look at places that are further apart by as much, so that at every such place stands what stood
    there before; it is what torchvision's `replace_stride_with_dilation` makes of a ResNet."""
    apart = 1
    for stage in stages:
        for module in stage.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            stride, module.stride = module.stride[0], (1, 1)
            if module.kernel_size[0] > 1:  # those of 1 x 1 are shortcuts, or have no stride
                module.dilation = (apart, apart)
                module.padding = tuple(apart * (side // 2) for side in module.kernel_size)
                apart *= stride


def _stride(stage: nn.Module) -> int:
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    return math.prod(module.stride[0] for module in convolutions if module.kernel_size[0] > 1)
