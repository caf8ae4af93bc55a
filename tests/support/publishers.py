"""Files of weights as others publish them, made of small networks of torchvision and timm with random weights: the
names and the wrapping are theirs."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from methods.backbones.small_vgg.network import SmallVGG

State = dict[str, torch.Tensor]


def lived_in(network: nn.Module) -> nn.Module:
    """Every parameter and statistic somewhere else than at its initial value."""
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * (value.abs().mean() + 0.1) * (torch.rand(value.shape, generator=generator) - 0.5))
    return network.eval()


class DeepClusters(nn.Module):
    """The input of models/vgg16.py of DeepCluster: grey of three channels, then Sobel filters; behind it a network
    whose features are those before its last ReLU. The thirds that make the grey are in the file, and here a mean, which
    has no rounding of fp32 in it."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.sobel = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=1))
        across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        down = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
        with torch.no_grad():
            self.sobel[0].weight.fill_(1 / 3)
            self.sobel[1].weight.copy_(torch.stack([across, down])[:, None])
            for layer in self.sobel:
                layer.bias.zero_()
        self.trunk = trunk

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(self.sobel[1](images.mean(1, keepdim=True)))


def resnet18() -> nn.Module:
    network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    return lived_in(network)


def vit_tiny() -> nn.Module:
    return lived_in(timm.create_model("vit_tiny_patch16_224", num_classes=0))


def torchvisions_vit_tiny() -> nn.Module:
    sizes = {"num_layers": 12, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768}
    network = torchvision.models.VisionTransformer(image_size=224, patch_size=16, **sizes)
    network.heads = nn.Identity()
    return lived_in(network)


def small_vgg() -> nn.Module:
    return DeepClusters(lived_in(SmallVGG())).eval()


@dataclass(frozen=True)
class Published:
    """name: of the file. network: the public one, images -> features. backbone: ours. content: its state -> what is
    saved. thrown_away: what a reader is to find and to leave. layout: as it is told. old: torch's older format."""

    name: str
    network: Callable[[], nn.Module]
    backbone: str
    content: Callable[[State], dict]
    layout: str
    thrown_away: tuple[str, ...] = ()
    old: bool = False

    def write(self, folder: Path, state: State) -> Path:
        path, content = folder / self.name, self.content(state)
        if path.suffix == ".safetensors":
            save_file({name: value.contiguous() for name, value in content.items()}, path)
        else:
            torch.save(content, path, _use_new_zipfile_serialization=not self.old)
        return path


def under(prefix: str, state: State) -> State:
    return OrderedDict((f"{prefix}{name}", value) for name, value in state.items())


def other(state: State) -> State:
    """The second network of a pair: of the same shapes, and another."""
    return {name: value + 1 for name, value in state.items()}


def head(prefix: str, width: int = 3) -> State:
    return {f"{prefix}.weight": torch.ones(width, 2), f"{prefix}.bias": torch.ones(width)}


def optimizer() -> dict:
    """State as SGD has it once it has stepped."""
    return {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def dino(state: State) -> dict:
    return {
        "student": under("module.backbone.", other(state)) | head("module.head.mlp.0") | head("module.head.last_layer"),
        "teacher": under("backbone.", state) | head("head.mlp.0") | head("head.last_layer"),
        "optimizer": optimizer(),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", output_dir=Path("/somewhere"), lr=0.0005),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def swav(state: State) -> dict:
    heads = head("module.projection_head.0") | head("module.projection_head.3") | head("module.prototypes")
    return under("module.", state) | heads


def vissl(state: State) -> dict:
    model = {"trunk": under("_feature_blocks.", state), "heads": head("0.clf.0")}
    classy = {"base_model": {"model": model}, "optimizer": optimizer(), "loss": {"center": torch.ones(2)}, "hooks": {}}
    return {"type": "consolidated", "phase_idx": 3, "classy_state_dict": classy}


def deepcluster(state: State) -> dict:
    """Its features are in a DataParallel, and its Sobel filters in the file."""
    named = {name.removeprefix("trunk."): value for name, value in state.items()}
    named = {name.replace("features.", "features.module."): value for name, value in named.items()}
    return {"epoch": 200, "arch": "vgg16", "state_dict": named | head("top_layer"), "optimizer": optimizer()}


def deepercluster(state: State) -> dict:
    named = {name.replace("trunk.", "body."): value for name, value in state.items()}
    return {"epoch": 100, "state_dict": under("module.", named | head("pred_layer")), "optimizer": optimizer()}


def lightly(state: State) -> dict:
    """nn.Sequential of a ResNet's children but the last, in a module of Lightning."""
    row = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
    numbered = dict(zip(row.state_dict(), state.values(), strict=True))
    named = under("backbone.", numbered) | under("backbone_momentum.", other(numbered))
    named |= head("projection_head.layers.0") | head("projection_head_momentum.layers.0")
    named |= {"criterion.memory_bank.bank": torch.ones(2, 3)}
    return {"epoch": 9, "state_dict": named, "loops": {}, "callbacks": {}, "hyper_parameters": {"lr": 0.1}}


def moco(state: State) -> dict:
    named = under("module.encoder_q.", state) | head("module.encoder_q.fc.0")
    named |= under("module.encoder_k.", other(state)) | head("module.encoder_k.fc.0")
    named |= {"module.queue": torch.ones(2, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 200, "arch": "resnet18", "state_dict": named, "optimizer": optimizer()}


def torchvisions(state: State) -> dict:
    """Files from before 2019 have no counters."""
    return {name: value for name, value in state.items() if "num_batches" not in name} | head("fc", 1000)


def torchvisions_vit(state: State) -> dict:
    """As its released file calls them."""
    named = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): v for name, v in state.items()}
    return named | head("heads.head", 1000)


def solo_learn(state: State) -> dict:
    named = under("backbone.", state) | under("momentum_backbone.", other(state)) | head("classifier")
    named |= head("projector.0") | head("momentum_projector.0") | {"queue": torch.ones(2)}
    return {"state_dict": named, "hyper_parameters": OmegaConf.create({"optimizer": {"lr": 0.3}, "max_epochs": [1, 2]})}


def barlow_twins(state: State) -> dict:
    named = under("module.backbone.", state) | under("module.projector.", head("0"))
    named |= {"module.bn.running_mean": torch.ones(2), "module.bn.running_var": torch.ones(2)}
    return {"epoch": 300, "model": named, "optimizer": optimizer()}


def training_script(state: State) -> dict:
    """Of PyTorch's own example for ImageNet."""
    named = under("module.", state | head("fc", 1000))
    return {"epoch": 90, "arch": "resnet18", "state_dict": named, "best_acc1": torch.tensor(69.8)}


PUBLISHED = {
    "dino": Published(
        "checkpoint.pth", vit_tiny, "vit_tiny_16", dino, "DINO's full checkpoint",
        ("dino_loss", "optimizer", "student", "teacher.head"),
    ),
    "dino backbone": Published("dino_pretrain.pth", vit_tiny, "vit_tiny_16", dict, "timm's transformers"),
    "swav": Published(
        "swav.pth.tar", resnet18, "resnet18", swav, "SwAV", ("projection_head", "prototypes"), old=True
    ),
    "vissl": Published(
        "model_final_checkpoint_phase99.torch", resnet18, "resnet18", vissl, "VISSL",
        ("classy_state_dict.base_model.model.heads", "classy_state_dict.loss", "classy_state_dict.optimizer"),
    ),
    "deepcluster": Published(
        "checkpoint.pth.tar", small_vgg, "small_vgg", deepcluster, "DeepCluster",
        ("optimizer", "state_dict.sobel", "state_dict.top_layer"), old=True,
    ),
    "deepercluster": Published(
        "ours.pth", small_vgg, "small_vgg", deepercluster, "DeeperCluster",
        ("optimizer", "state_dict.pred_layer", "state_dict.sobel"), old=True,
    ),
    "lightly": Published(
        "epoch=9.ckpt", resnet18, "resnet18", lightly, "lightly",
        (
            "state_dict.backbone_momentum", "state_dict.criterion", "state_dict.projection_head",
            "state_dict.projection_head_momentum",
        ),
    ),
    "moco": Published(
        "moco_v2_800ep.pth.tar", resnet18, "resnet18", moco, "MoCo",
        (
            "optimizer", "state_dict.encoder_k", "state_dict.encoder_q.fc", "state_dict.queue",
            "state_dict.queue_ptr",
        ),
        old=True,
    ),
    "torchvision": Published(
        "resnet18-5c106cde.pth", resnet18, "resnet18", torchvisions, "torchvision and timm", ("fc",), old=True
    ),
    "torchvision's transformer": Published(
        "vit.pth", torchvisions_vit_tiny, "vit_tiny_16", torchvisions_vit, "torchvision's transformers", ("heads",)
    ),
    "timm": Published(
        "model.safetensors", vit_tiny, "vit_tiny_16", lambda state: state | head("head"), "timm's transformers",
        ("head",),
    ),
    "solo-learn": Published(
        "last.ckpt", resnet18, "resnet18", solo_learn, "solo-learn",
        (
            "state_dict.classifier", "state_dict.momentum_backbone", "state_dict.momentum_projector",
            "state_dict.projector", "state_dict.queue",
        ),
    ),
    "barlow twins": Published(
        "checkpoint.pt", resnet18, "resnet18", barlow_twins, "torchvision and timm",
        ("model.bn", "model.projector", "optimizer"),
    ),
    "pytorch's example": Published(
        "model_best.pth.tar", resnet18, "resnet18", training_script, "torchvision and timm",
        ("best_acc1", "state_dict.fc"),
    ),
}  # fmt: skip
