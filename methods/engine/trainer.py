"""What every method's trainer begins with; a method writes what differs."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from launcher.errors import InputError
from launcher.runtime.stateful import ModuleState, OptimizerState
from launcher.spec import registry
from methods import backbones
from methods.augment.patches import PatchesConfig
from methods.augment.spec import ViewsConfig
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView, PatchesView, TrainView
from methods.backbones.recompute import recompute_blocks
from methods.data.loader import Batch, View
from methods.engine.collapse import Watched
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.parts import optim
from methods.parts.bank import SampleBank
from methods.parts.batchnorm import synchronise
from methods.parts.heads import Headed
from methods.parts.layout import memory_parts
from methods.parts.memory import KeyQueue, Memory

Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]  # (a mean over this rank's images, detached scalars to log)


class Trainer:
    """Built in this order: the network, with the weights of `init_from`; the network that follows it, if any; batch
    statistics over ranks; gradients over ranks; optimisers. All of it is registered, and so in every checkpoint. What
    else changes during training a method registers with `job.owners.add(name, owner)`.

    A method writes `loss`, and of the rest what it has; a method that overrides `__init__` begins with this one.
    `step` counts from 0 to the end of the training. What depends on time is computed from it: what a step leaves behind
    for the next one must be registered.

    network: as it trains, wrapped where there are several ranks; module: the same, never wrapped. follower: without
    gradients, or None. backbone: what is evaluated and exported.
    """

    network_type: type[Headed] = Headed  # called with a backbone and the heads of the outline
    # Names in a checkpoint of the network that trains and of its follower. The one saved as "network" is evaluated and
    # exported.
    saved_as = ("network", "follower")
    watched: Watched | None = None  # which of the scalars tell of a collapse

    def __init__(self, job: Job):
        self.job, self.config, self.world, self.device = job, job.config, job.world, job.world.device
        self.method = registry.method(self.config.name)
        if not hasattr(self.method, "outline"):
            fix = "make its METHOD with methods.engine.outline.method"
            raise InputError.of("method", self.config.name, "it has no outline to build a network from", fix)
        self.outline = self.method.outline(self.config)
        self.steps_per_epoch = len(job.dataset) // self.config.global_batch
        self.total_steps = self.steps_per_epoch * self.config.epochs
        self.photometrics = Photometrics(self.config) if isinstance(self.config, ViewsConfig) else None

        torch.manual_seed(job.seed_for("network"))
        network = self.build(backbones.build(self.config.backbone, **self.options()))
        self.module = network
        load_backbone(network.backbone, job)
        self.follower = self.build_follower(network)
        if self.outline.recompute:
            recompute_blocks(self.config.backbone, network.backbone.trunk)
        built = [network] if self.follower is None else [network, self.follower]
        synchronise(nn.ModuleList(built), self.world, job.layout.batch_norm_ranks)
        self.network = job.distribute(network)
        if self.follower is not None:
            self.follower.to(self.device).requires_grad_(False)
        self.networks = [self.network, *built[1:]]  # that have a train mode, and running statistics
        self.backbone = dict(zip(self.saved_as, built, strict=False))["network"].backbone
        for name, module in zip(self.saved_as, built, strict=False):
            job.owners.add(name, ModuleState(module))

        made = self.optimizer(network)
        made = made if isinstance(made, Mapping) else {"optimizer": made}
        self.optimizers = list(made.values())
        for name, optimizer in made.items():
            job.owners.add(name, OptimizerState(optimizer, dict(network.named_parameters())))

    # -- what it is made of ------------------------------------------------------------------------------------------

    def build(self, backbone: nn.Module) -> nn.Module:
        """The network, with `backbone` as its `.backbone`. Weights are drawn from torch's generator: it is seeded."""
        return self.network_type(backbone, self.outline.heads)

    def options(self) -> dict[str, Any]:
        """What the config has of `backbones.build`'s arguments: how much of the backbone is dropped in training, and
        how its residual blocks begin."""
        options = "dropout", "drop_path", "zero_init_residual"
        return {name: getattr(self.config, name) for name in options if hasattr(self.config, name)}

    def build_follower(self, network: nn.Module) -> nn.Module | None:
        """A teacher, a target, a momentum encoder: one that begins as `network` is now, or with weights of its own, and
        follows it in `after_step` (`parts.ema`)."""
        return None

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer]:
        """Of all that trains, biases and norms alike (`optim.parameter_groups` tells them apart); or several, by the
        names under which they are saved."""
        return optim.make(self.config, network.parameters())

    def remember(self, name: str, memory: Memory | SampleBank | KeyQueue) -> Any:
        """Register what earlier batches left, which moves with the run to another number of ranks."""
        if isinstance(memory, KeyQueue):  # the same on every rank
            self.job.owners.add(name, memory)
            return memory
        if isinstance(memory, SampleBank):
            parts = memory.parts()
        else:
            parts = memory.parts(memory_parts(self.config.global_batch), self.world.rank, self.world.size)
        for number, part in parts.items():
            self.job.owners.add(f"{name}_{number:03d}", part, shard=f"{name}_{number:03d}", writes=True)
        return memory

    # -- what it is given --------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Before the steps of `epoch`; also after a restore in its middle. Collective; may raise Stopped, and must then
        have changed nothing."""

    def view(self) -> View:
        """What becomes of an image in the data loader: the config's crops or patches, or one crop of it."""
        config, seed = self.config, self.job.spec.seed
        if isinstance(config, ViewsConfig):
            return MultiCropView.of(config, seed)
        if isinstance(config, PatchesConfig):
            return PatchesView.of(config, seed)
        return TrainView(seed, config.image_size, config.crop_scale)

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step of `epoch` from step `first` on, with the method's columns: each image at most
        once an epoch."""
        return self.job.batches_in_turn(self.view(), epoch, first, self.steps_per_epoch, self.method.columns)

    def images(self, batch: Batch) -> torch.Tensor:
        """On the device, uint8 [B, C, H, W], where an image gives one; [B, P, C, S, S] of patches."""
        return batch.images.to(self.device, non_blocking=True)

    def crops(self, batch: Batch) -> list[torch.Tensor]:
        """On the device, where a config has crops: float32 [V B, C, S, S] of each resolution, the global ones first;
        view v of them is rows v B to (v + 1) B."""
        if self.photometrics is None:
            raise TypeError(f"{type(self.config).__name__} has no crops: derive it from ViewsConfig, or use `images`")
        return self.photometrics(batch.images.to(self.device, non_blocking=True))

    # -- a step, in this order ---------------------------------------------------------------------------------------

    def before_step(self, step: int) -> None:
        """Before the first forward pass, when gradients are gone and learning rates are set: weight decay, for
        example."""

    def loss(self, batch: Batch, step: int) -> Loss:
        """Of a micro-batch: this rank's images of a step, or some of them. What is remembered may change here where the
        outline `couples` the batch, because then a step is one pass."""
        raise NotImplementedError(f"{type(self).__name__}.loss")

    def after_backward(self, step: int) -> None:
        """When gradients are complete, averaged over ranks and passes, and of their true scale: clip or drop them."""

    def after_step(self, step: int) -> None:
        """After the optimisers: a network that follows, for example."""

    # -- what it says of itself --------------------------------------------------------------------------------------

    def figures(self, step: int) -> dict[str, Any]:
        """At an evaluation, beside the backbone's k-NN: {name: number}, or {of what: {name: number}}. Collective."""
        return {}
