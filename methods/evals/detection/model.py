"""torchvision's Faster R-CNN and Mask R-CNN around the backbone of a run, and the loss of some images."""

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from methods import backbones
from methods.backbones.spec import RGB_MEAN, RGB_STD
from methods.evals.detection.spec import LEVELS, STAGES, Detection

LOOK = 64  # pixels a side of the image by which stages are found
RATIOS = (0.5, 1.0, 2.0)  # height / width of anchors
BOX_CELLS, MASK_CELLS = 7, 14  # a side of what is pooled of a box
NORM = nn.modules.batchnorm._BatchNorm


@dataclass
class Stage:
    """A module of a network whose map is taken; `before`: the modules with parameters that come first, its own too."""

    module: nn.Module
    channels: int
    stride: int  # pixels of the image for one of the map
    before: list[nn.Module]


class Pyramid(nn.Module):
    """A backbone and its feature pyramid: normalised images float [B, 3, H, W] -> {"0": [B, width, H / 4, W / 4], ...,
    "pool": ...} float32, where the first stage has that stride."""

    def __init__(self, body: nn.Module, name: str, width: int, norm: type[nn.Module] | None):
        """body: of `backbones.build(name)`."""
        super().__init__()
        self.body, self.out_channels = body, width
        self.stages = stages_of(body, name)
        self.fpn = FeaturePyramidNetwork(
            [stage.channels for stage in self.stages], width, LastLevelMaxPool(), norm_layer=norm
        )
        self.strides = [stage.stride for stage in self.stages]
        self.strides.append(2 * self.strides[-1])
        self._maps: dict[str, torch.Tensor] = {}
        for number, stage in enumerate(self.stages):
            stage.module.register_forward_hook(lambda _m, _given, made, key=str(number): self._maps.update({key: made}))

    def forward(self, images: torch.Tensor) -> "OrderedDict[str, torch.Tensor]":
        _convolutions(self.body)(self.body.input(images))
        maps = OrderedDict(sorted(self._maps.items()))
        self._maps.clear()
        return OrderedDict((key, _precise(value)) for key, value in self.fpn(maps).items())


class BoxPredictor(FastRCNNPredictor):
    """torchvision's, in float32 whatever the precision: in bf16 many scores would be one, and boxes have no order."""

    def forward(self, units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(units.device.type, enabled=False):
            return super().forward(units.to(self.cls_score.weight.dtype))


def stages_of(body: nn.Module, name: str) -> list[Stage]:
    """Those that give the last map of each size, the four smallest sizes. Raises ValueError where they are fewer."""
    seen: list[nn.Module] = []
    found: dict[int, Stage] = {}

    def take(module: nn.Module, _given: Any, made: torch.Tensor) -> None:
        if made.dim() == 4:
            stride = LOOK // made.shape[-1]
            found[stride] = Stage(module, made.shape[1], stride, list(seen))

    own = [module for module in body.modules() if [*module.parameters(recurse=False)]]
    hooks = [module.register_forward_hook(lambda module, *_: seen.append(module)) for module in own]
    hooks += [module.register_forward_hook(take) for module in backbones.network(name).stages(body.trunk).values()]
    device, training = next(body.parameters()).device, body.training
    body.eval()
    with torch.no_grad():
        _convolutions(body)(body.input(torch.zeros(1, 3, LOOK, LOOK, device=device)))
    body.train(training)
    for hook in hooks:
        hook.remove()
    if len(found) < STAGES:
        raise ValueError(f"{name}: its stages have maps of {len(found)} sizes, not {STAGES}")
    return [stage for _, stage in sorted(found.items())][-STAGES:]


def detector(backbone: nn.Module, name: str, settings: Detection, classes: int, seed: int) -> FasterRCNN:
    """A detector of `classes` beside the background, whose body is a copy of `backbone`, of `backbones.build(name)`.
    New weights are drawn with `seed` as torchvision draws them. It is where the backbone is, ready to learn."""
    device = next(backbone.parameters()).device
    with drawn_from(seed, device):
        model = _made(copy.deepcopy(backbone).cpu().requires_grad_(False), name, settings, 1 + classes)
    for module in (model.rpn.head, getattr(model.roi_heads, "mask_predictor", None)):
        if module is not None:  # coordinates of some hundred pixels need more digits than bf16 has
            module.register_forward_hook(lambda _module, _given, made: _precise(made))
    stages = model.backbone.stages
    for module in stages[-1].before[len(stages[settings.frozen - 1].before) if settings.frozen else 0 :]:
        module.requires_grad_(True)
    if settings.norm == "frozen":
        for module in model.modules():
            if isinstance(module, NORM):
                module.requires_grad_(False)
    return learning(model.to(device))


def learning(model: nn.Module) -> Any:
    """The model in the mode in which it learns: batch normalisation that does not keeps its statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, NORM) and not module.weight.requires_grad:
            module.eval()
    return model


def loss_of(
    model: FasterRCNN,
    images: Sequence[torch.Tensor],
    targets: Sequence[dict[str, torch.Tensor]],
    seeds: Sequence[tuple[int, int]],
    *,
    canvas: Any = None,
) -> torch.Tensor:
    """The sum over images of their losses, each as torchvision has it of the image alone.

    images: float [3, H, W], 0 to 1; targets: `boxes` float32 [n, 4], `labels` int64 [n] from 1 on, and `masks` uint8
    [n, H, W]; seeds: of each image, for what is drawn of its size and flip, and of its boxes. canvas: None: each goes
    through the backbone alone; else a function that gives, of the sizes (height, width) of these images, the one that
    all are padded to, and they go together, with common batch statistics.
    """
    ready = [
        augmented(model, image, target, first) for image, target, (first, _) in zip(images, targets, seeds, strict=True)
    ]
    if canvas is None:
        maps = [model.backbone(one.tensors) for one, _ in ready]
    else:
        height, width = canvas([tuple(one.tensors.shape[-2:]) for one, _ in ready])
        padded = [
            pad(one.tensors, (0, width - one.tensors.shape[-1], 0, height - one.tensors.shape[-2])) for one, _ in ready
        ]
        together = model.backbone(torch.cat(padded))
        maps = [_own(together, number, one, model.backbone.strides) for number, (one, _) in enumerate(ready)]
    total = torch.zeros((), device=ready[0][0].tensors.device)
    for (one, target), own, (_, second) in zip(ready, maps, seeds, strict=True):
        with drawn_from(second, one.tensors.device):
            boxes, losses = model.rpn(one, own, target)
            _, more = model.roi_heads(own, boxes, one.image_sizes, target)
        total = total + sum(losses.values()) + sum(more.values())
    return total


def augmented(
    model: FasterRCNN, image: torch.Tensor, target: dict[str, torch.Tensor], seed: int
) -> tuple[ImageList, list[dict[str, torch.Tensor]]]:
    """One image, turned round with probability 1/2 and resized to one of the sides, and what is there."""
    with drawn_from(seed, image.device):
        if torch.rand(()) < 0.5:
            image, target = image.flip(-1), dict(target)
            boxes = target["boxes"]
            target["boxes"] = torch.stack(
                [image.shape[-1] - boxes[:, 2], boxes[:, 1], image.shape[-1] - boxes[:, 0], boxes[:, 3]], dim=1
            )
            if "masks" in target:
                target["masks"] = target["masks"].flip(-1)
        return model.transform([image], [target])


@contextlib.contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, what torch draws follows from `seed`, and outside nothing is changed by it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _made(body: nn.Module, name: str, settings: Detection, classes: int) -> FasterRCNN:
    width, norm = settings.width, nn.BatchNorm2d if settings.norm == "synchronised" else None
    pyramid = Pyramid(body, name, width, norm)
    parts: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(tuple((side,) for side in settings.anchors), (RATIOS,) * LEVELS),
        "box_roi_pool": _pool(pyramid, BOX_CELLS),
        "box_head": TwoMLPHead(width * BOX_CELLS**2, settings.hidden),
        "box_predictor": BoxPredictor(settings.hidden, classes),
        # Of a level, before those that overlap are left out: Detectron2 has 2000 and 1000 for 1000.
        "rpn_pre_nms_top_n_train": 2 * settings.proposals,
        "rpn_pre_nms_top_n_test": settings.proposals,
        "rpn_post_nms_top_n_train": settings.proposals,
        "rpn_post_nms_top_n_test": settings.proposals,
        "box_batch_size_per_image": settings.rois,
        "min_size": sorted(settings.sides),
        "max_size": settings.longest,
        "image_mean": list(RGB_MEAN),
        "image_std": list(RGB_STD),
    }
    if settings.detector == "faster_rcnn":
        return FasterRCNN(pyramid, **parts)
    parts |= {
        "mask_roi_pool": _pool(pyramid, MASK_CELLS),
        "mask_head": MaskRCNNHeads(width, (width,) * 4, 1),
        "mask_predictor": MaskRCNNPredictor(width, width, classes),
    }
    return MaskRCNN(pyramid, **parts)


def _pool(pyramid: Pyramid, cells: int) -> MultiScaleRoIAlign:
    """torchvision's finds out scales from the first image that it sees, and is wrong about small ones."""
    pool = MultiScaleRoIAlign([str(number) for number in range(STAGES)], cells, sampling_ratio=2)
    strides = pyramid.strides[:STAGES]
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = initLevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))
    return pool


def _own(maps: Any, number: int, one: ImageList, strides: Sequence[int]) -> "OrderedDict[str, torch.Tensor]":
    """What the maps of a canvas have of image `number`, as if it were alone."""
    height, width = one.tensors.shape[-2:]
    return OrderedDict(
        (key, value[number : number + 1, :, : math.ceil(height / stride), : math.ceil(width / stride)])
        for (key, value), stride in zip(maps.items(), strides, strict=True)
    )


def _convolutions(body: nn.Module) -> nn.Module:
    """Of a VGG without its linear layers, which take the most of its weights and give no map."""
    return getattr(body.trunk, "features", body.trunk)


def _precise(made: Any) -> Any:
    """Tensors, in rows or alone, as float32 at least."""
    if isinstance(made, torch.Tensor):
        return made.to(torch.promote_types(made.dtype, torch.float32))
    return type(made)(_precise(each) for each in made)
