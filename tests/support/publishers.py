"""Files of weights as others publish them, made of small networks of torchvision and timm with random weights: the
names and the wrapping are theirs."""

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

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


class Python2(pickle._Pickler):
    """Writes as Python 2.7 and torch 0.1.8 did: strings of bytes, numbers beyond 32 bits as text, a tensor by its
    first way of being built again, an ordered dictionary by its pairs."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str) -> None:
        encoded = text.encode("ascii")
        self.write(pickle.SHORT_BINSTRING + bytes([len(encoded)]) + encoded)
        self.memoize(text)

    def save_number(self, number: int) -> None:
        if 2**31 <= abs(number) < 2**63:
            self.write(pickle.INT + str(number).encode() + b"\n")
        else:
            self.save_long(number)

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor):
            placed = thing.storage_offset(), tuple(thing.shape), thing.stride()
            return torch._utils._rebuild_tensor, (thing._typed_storage(), *placed)
        if type(thing) is OrderedDict:
            return OrderedDict, ([[key, value] for key, value in thing.items()],)
        return NotImplemented

    dispatch[str], dispatch[int] = save_string, save_number


def dumped(thing: Any, file: Any, protocol: int) -> None:
    Python2(file, protocol).dump(thing)


PYTHON2 = SimpleNamespace(Pickler=Python2, dump=dumped, __name__="pickle")  # for torch.save


@dataclass(frozen=True)
class Published:
    """name: of the file. network: the public one, images -> features. backbone: ours. content: its state -> what is
    saved. thrown_away: what a reader is to find and to leave. layout: as it is told. old: torch's older format;
    python2: written by Python 2 in it."""

    name: str
    network: Callable[[], nn.Module]
    backbone: str
    content: Callable[[State], dict]
    layout: str
    thrown_away: tuple[str, ...] = ()
    old: bool = False
    python2: bool = False

    def write(self, folder: Path, state: State) -> Path:
        path, content = folder / self.name, self.content(state)
        if path.suffix == ".safetensors":
            save_file({name: value.contiguous() for name, value in content.items()}, path)
        else:
            way = PYTHON2 if self.python2 else pickle
            torch.save(content, path, pickle_module=way, _use_new_zipfile_serialization=not self.old)
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
    heads = head("head.mlp.0") | head("head.mlp.2") | head("head.mlp.4")
    heads |= {"head.last_layer.weight_g": torch.ones(4, 1), "head.last_layer.weight_v": torch.ones(4, 2)}
    return {
        "student": under("module.backbone.", other(state)) | under("module.", heads),
        "teacher": under("backbone.", state) | heads,
        "optimizer": optimizer(),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", output_dir=Path("/somewhere"), lr=0.0005),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def dinos_resnet(state: State) -> dict:
    """With batch normalisation the teacher is in a DDP, too; the scaler of fp16 is numbers alone."""
    whole = dino(state)
    whole["teacher"] = under("module.", whole["teacher"])
    return whole | {"fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3}}


def swav(state: State) -> dict:
    heads = projection_head() | {"prototypes.weight": torch.ones(3, 2)}
    return under("module.", OrderedDict(state) | heads)


def projection_head() -> State:
    """SwAV's: two layers, batch normalisation between them."""
    row = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2))
    return under("projection_head.", row.state_dict())


def deepclusterv2(state: State) -> dict:
    """Of several sets of prototypes, as SeLa-v2's."""
    heads = projection_head() | {f"prototypes.prototypes{number}.weight": torch.ones(3, 2) for number in range(3)}
    return under("module.", OrderedDict(state) | heads)


def vissl(state: State) -> dict:
    model = {"trunk": under("_feature_blocks.", state), "heads": head("0.clf.0")}
    classy = {"base_model": {"model": model}, "optimizer": optimizer(), "loss": {"center": torch.ones(2)}, "hooks": {}}
    return {"type": "consolidated", "phase_idx": 3, "classy_state_dict": classy}


def deepcluster(state: State) -> dict:
    """Its features are in a DataParallel, and its Sobel filters in the file."""
    named = {name.removeprefix("trunk."): value for name, value in state.items()}
    named = {name.replace("features.", "features.module."): value for name, value in named.items()}
    named = {name: value for name, value in named.items() if "num_batches" not in name}
    kept = {140227358621264: {"momentum_buffer": torch.ones(3)}}  # under addresses, as torch 0.1.8 has it
    steps = {"state": kept, "param_groups": [{"lr": 0.05, "params": [140227358621264]}]}
    content = OrderedDict(named | head("top_layer"))
    return {"epoch": 200, "arch": "vgg16", "state_dict": content, "optimizer": steps}


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


def byol(state: State) -> dict:
    """BYOL-PyTorch: a ResNet's children but the last, and its own spelling."""
    row = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
    numbered = dict(zip(row.state_dict(), state.values(), strict=True))
    named = under("online_network.encoder.", numbered) | under("target_network.encoder.", other(numbered))
    for where in ("online_network.projetion", "target_network.projetion", "predictor.predictor"):
        named |= head(f"{where}.l1") | head(f"{where}.bn1") | head(f"{where}.l2")
    named = under("module.", named)
    return {"config": {"seed": 0}, "epoch": 300, "steps": 9, "model": named, "optimizer": optimizer(), "amp": {}}


def moco(state: State) -> dict:
    named = under("module.encoder_q.", state) | head("module.encoder_q.fc.0") | head("module.encoder_q.fc.2")
    named |= under("module.encoder_k.", other(state)) | head("module.encoder_k.fc.0") | head("module.encoder_k.fc.2")
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
    "dino, a ResNet": Published(
        "dino_resnet50_pretrain_full_checkpoint.pth", resnet18, "resnet18", dinos_resnet, "DINO's full checkpoint",
        ("dino_loss", "optimizer", "student", "teacher.head"),
    ),
    "dino backbone": Published("dino_pretrain.pth", vit_tiny, "vit_tiny_16", dict, "timm's transformers"),
    "swav": Published(
        "swav.pth.tar", resnet18, "resnet18", swav, "SwAV", ("projection_head", "prototypes"), old=True
    ),
    "deepcluster-v2": Published(
        "deepclusterv2_800ep_pretrain.pth.tar", resnet18, "resnet18", deepclusterv2, "SwAV",
        ("projection_head", "prototypes"), old=True,
    ),
    "byol": Published(
        "resnet50_byol.pth.tar", resnet18, "resnet18", byol, "BYOL-PyTorch",
        ("model.online_network.projetion", "model.predictor", "model.target_network", "optimizer"),
    ),
    "vissl": Published(
        "model_final_checkpoint_phase99.torch", resnet18, "resnet18", vissl, "VISSL",
        ("classy_state_dict.base_model.model.heads", "classy_state_dict.loss", "classy_state_dict.optimizer"),
    ),
    "deepcluster": Published(
        "checkpoint.pth.tar", small_vgg, "small_vgg", deepcluster, "DeepCluster",
        ("optimizer", "state_dict.sobel", "state_dict.top_layer"), old=True, python2=True,
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
