"""Steps that one would write by hand, beside which benchmarks/gpu_steps.py sets the engine's; not to be run alone.

Crops of noise lie on the device as float32; nothing is decoded, moved or distorted. Networks are copies of the
trainer's, optimisers of its kind. Plain: the method's own loss. Lightly: heads and losses of lightly
(docs.lightly.ai), a step as in its examples, which send each view through the backbone by itself.
"""

import copy

import torch

from methods.dino.loss import distillation
from methods.dino.teacher import teacher_targets
from methods.simclr.loss import nt_xent
from methods.swav.loss import pseudo_labels, swapped_prediction

RATE = 1e-4
MOMENTUM = 0.996  # of a teacher


class Side:
    """Forward, loss, backward, optimiser; a side says what it trains and what its loss is."""

    def __init__(self, job, trainer):
        self.job, self.config, self.device = job, job.config, job.world.device
        self.network = self.build(trainer).to(self.device)
        kind = type(trainer.optimizers[0])
        momentum = {} if issubclass(kind, torch.optim.AdamW) else {"momentum": 0.9}
        self.optimizer = kind([p for p in self.network.parameters() if p.requires_grad], lr=RATE, **momentum)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.config.precision == "fp16")
        shapes = (self.config.global_crops, self.config.image_size), (self.config.local_crops, self.config.local_size)
        count = self.config.global_batch
        self.crops = [torch.randn(v * count, 3, size, size, device=self.device) for v, size in shapes if v]

    def steps(self, count):
        for _ in range(count):
            with self.job.autocast():
                loss = self.loss()
            self.optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(loss).backward()
            self._scaler.step(self.optimizer)
            self._scaler.update()
            self.after_step()

    def views(self, crops):
        """[V B, ...] -> [V, B, ...]"""
        return crops.unflatten(0, (-1, self.config.global_batch))

    def after_step(self):
        """A teacher follows here."""


class PlainSwAV(Side):
    def build(self, trainer):
        return copy.deepcopy(trainer.module)

    def loss(self):
        config = self.config
        scores = self.views(self.network(self.crops)[1])
        labels = pseudo_labels(scores[: config.global_crops].detach(), epsilon=config.epsilon)
        return swapped_prediction(scores, labels, temperature=config.temperature)


class PlainSimCLR(PlainSwAV):
    def loss(self):
        return nt_xent(self.views(self.network(self.crops)[0]), temperature=self.config.temperature)


class PlainDINO(PlainSwAV):
    def __init__(self, job, trainer):
        super().__init__(job, trainer)
        self._teacher = copy.deepcopy(trainer.teacher)
        self._centre = torch.zeros(self.config.outputs, device=self.device)

    def loss(self):
        config = self.config
        with torch.no_grad():
            taught = self.views(self._teacher(self.crops[:1]))
        outputs = self.views(self.network(self.crops))
        targets = teacher_targets(taught, self._centre, temperature=config.teacher_temperature, operation="centring")
        self._centre.lerp_(taught.float().mean((0, 1)), 1 - config.centre_momentum)
        return distillation(outputs, targets, temperature=config.temperature)[0]

    @torch.no_grad()
    def after_step(self):
        follow(self._teacher, self.network)


@torch.no_grad()
def follow(teacher, student):
    mine, theirs = list(teacher.parameters()), list(student.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - MOMENTUM)


class LightlySwAV(Side):
    def build(self, trainer):
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        config, backbone = self.config, copy.deepcopy(trainer.module.backbone)
        self._loss = SwaVLoss(config.temperature, config.sinkhorn_iterations, config.epsilon)
        head = SwaVProjectionHead(backbone.feature_dim, config.hidden, config.embedding)
        prototypes = SwaVPrototypes(config.embedding, config.prototypes)
        return torch.nn.ModuleDict({"backbone": backbone, "head": head, "prototypes": prototypes})

    def loss(self):
        self.network["prototypes"].normalize()
        scores = [self._scores(view) for crops in self.crops for view in self.views(crops)]
        return self._loss(scores[: self.config.global_crops], scores[self.config.global_crops :])

    def _scores(self, images):
        embeddings = torch.nn.functional.normalize(self.network["head"](self.network["backbone"](images)), dim=1)
        return self.network["prototypes"](embeddings)


class LightlySimCLR(Side):
    def build(self, trainer):
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        config, backbone = self.config, copy.deepcopy(trainer.module.backbone)
        self._loss = NTXentLoss(temperature=config.temperature)
        head = SimCLRProjectionHead(backbone.feature_dim, config.hidden, config.embedding)
        return torch.nn.Sequential(backbone, head)

    def loss(self):
        one, other = (self.network(view) for view in self.views(self.crops[0]))
        return self._loss(one, other)


class LightlyDINO(Side):
    def build(self, trainer):
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        config = self.config
        self._loss = DINOLoss(config.outputs, warmup_teacher_temp_epochs=0).to(self.device)
        sizes = config.hidden, config.bottleneck, config.outputs

        def network(of):
            backbone = copy.deepcopy(of.backbone)
            return torch.nn.Sequential(backbone, DINOProjectionHead(backbone.feature_dim, *sizes))

        student, self._teacher = network(trainer.student), network(trainer.teacher).to(self.device)
        self._teacher.load_state_dict(student.state_dict(), strict=False)
        self._teacher.requires_grad_(False)
        return student

    def loss(self):
        with torch.no_grad():
            taught = [self._teacher(view) for view in self.views(self.crops[0])]
        outputs = [self.network(view) for crops in self.crops for view in self.views(crops)]
        return self._loss(taught, outputs, epoch=1)

    def after_step(self):
        follow(self._teacher, self.network)


PLAIN = {"swav": PlainSwAV, "dino": PlainDINO, "simclr": PlainSimCLR}
LIGHTLY = {"swav": LightlySwAV, "dino": LightlyDINO, "simclr": LightlySimCLR}
