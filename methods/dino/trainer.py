"""DINO (thesis chapter 5), top to bottom: student, teacher, views, targets, loss, centre."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from launcher.runtime.stateful import ModuleState, OptimizerState
from methods import backbones
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.data.loader import Batch
from methods.dino.loss import distillation, mean_square
from methods.dino.spec import DINOConfig
from methods.dino.teacher import Centre, teacher_targets
from methods.engine.collapse import Watched, entropy_of_use, likeness
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.parts import ema
from methods.parts.batchnorm import synchronise
from methods.parts.heads import DINOHead, perceptron
from methods.parts.optim import clip_each, drop_gradients, parameter_groups, set_weight_decay
from methods.parts.schedules import cosine, linear


class Network(nn.Module):
    """g = h o f (5.3.1): crops of several resolutions, float [V_i B, C, S_i, S_i] each -> scores [sum V_i B, K],
    float32."""

    def __init__(self, config: DINOConfig, *, student: bool):
        """student: drops paths, and has the predictor where there is one."""
        super().__init__()
        dropped = {"dropout": config.dropout, "drop_path": config.drop_path} if student else {}
        self.backbone = backbones.build(config.backbone, **dropped)
        self.head = DINOHead(
            self.backbone.feature_dim,
            config.outputs,
            layers=config.head_layers,
            hidden=config.hidden,
            bottleneck=config.bottleneck or None,
            batch_norm=config.head_batch_norm,
            activation=config.activation,
            fixed_length=config.fixed_length,
        )
        self.predictor: nn.Module = nn.Identity()
        if student and config.predictor:
            widths = [config.bottleneck, config.hidden, config.bottleneck]
            self.predictor = perceptron(widths, batch_norm=config.head_batch_norm, activation=config.activation)

    @property
    def last(self) -> nn.Module:
        """The layer that gives the scores."""
        return self.head.perceptron[-1] if self.head.last is None else self.head.last

    def forward(self, crops: Sequence[torch.Tensor]) -> torch.Tensor:
        # One pass of the backbone a resolution, one of the head over all crops.
        return self.scores(torch.cat([self.backbone(images) for images in crops]))

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """What the head says of the backbone's features, [N, d] -> [N, K]."""
        projected = self.predictor(self.head.projected(features))
        # In fp32: a score is divided by 0.04, and bf16 would be off by a tenth.
        with torch.autocast(projected.device.type, enabled=False):
            return self.head.scores(projected.float())


class DINO:
    """Self-distillation without labels: the student predicts, from any crop, what the teacher says of a global one."""

    def __init__(self, job: Job):
        self.job, config, world = job, job.config, job.world
        torch.manual_seed(job.seed_for("network"))
        student, teacher = Network(config, student=True), Network(config, student=False)
        load_backbone(student.backbone, job)
        for mine, theirs in _pairs(teacher, student):
            ema.begin(mine, theirs)
        self.student = synchronise(student, world, job.layout.batch_norm_ranks)
        self.teacher = synchronise(teacher, world, job.layout.batch_norm_ranks).to(world.device)
        self.backbone = self.teacher.backbone  # better than the student's all along (5.6.2)
        self.network = job.distribute(self.student)
        self.networks = [self.network, self.teacher]
        self.watched = Watched(config.outputs, use="teacher_use", single="teacher_entropy", alike="likeness")
        self.photometrics = Photometrics(config)
        groups = parameter_groups([self.student], weight_decay=config.weight_decay)
        if config.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=config.lr)
        else:
            optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
        self.optimizers = [optimizer]
        self.steps_per_epoch = len(job.dataset) // config.global_batch
        self.centre = Centre(config.outputs, momentum=config.centre_momentum, device=world.device)
        job.owners.add("network", ModuleState(self.teacher))
        job.owners.add("student", ModuleState(self.student))
        job.owners.add("optimizer", OptimizerState(optimizer, dict(self.student.named_parameters())))
        job.owners.add("centre", self.centre)

    def begin_epoch(self, epoch: int) -> None:
        """Nothing happens between epochs."""

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        view = MultiCropView.of(self.job.config, self.job.spec.seed)
        return self.job.batches_in_turn(view, epoch, first, self.steps_per_epoch)

    def before_step(self, step: int) -> None:
        """What moves with time: weight decay, the sharpness of the targets (5.3.2), the teacher's inertia (5.3.1)."""
        config, steps = self.job.config, self.steps_per_epoch * self.job.config.epochs
        set_weight_decay(self.optimizers[0], cosine(step, steps, config.weight_decay, config.final_weight_decay))
        warmup = config.teacher_warmup_epochs * self.steps_per_epoch
        self.temperature = linear(step, warmup, config.warmup_teacher_temperature, config.teacher_temperature)
        self.momentum = cosine(step, steps, config.teacher_momentum, config.final_teacher_momentum)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Eqs. 5.1 to 5.5: what the teacher says of the global crops, predicted from every other crop."""
        config, images = self.job.config, len(batch.ids)
        crops = self.photometrics(batch.images.to(self.job.world.device, non_blocking=True))
        with torch.no_grad():
            features = self.teacher.backbone(crops[0])
            taught = self.teacher.scores(features).unflatten(0, (-1, images))  # g_t: [A, B, K]
        outputs = self.network(crops).unflatten(0, (-1, images))  # g_s: [V, B, K], the global crops first
        operation, centre = config.operation, self.centre.value
        if config.objective == "mse":
            loss = mean_square(outputs, taught, centre if operation == "centring" else torch.zeros_like(centre))
            figures = {"likeness": likeness(taught[0])}  # no classes whose use would tell
        else:
            targets = teacher_targets(
                taught, centre, temperature=self.temperature, operation=operation, iterations=config.sinkhorn_iterations
            )
            loss, figures = distillation(outputs, targets, temperature=config.temperature)
            # Of features: what outputs have in common is centred away.
            figures |= {"teacher_use": entropy_of_use(targets), "likeness": likeness(features[:images])}
        self.centre.update(taught)  # after the loss that used it
        return loss, figures

    def after_backward(self, step: int) -> None:
        """Clip, then leave the last layer as it was drawn in the first epoch: neither decay nor momentum move it."""
        config = self.job.config
        if config.clip is not None:
            clip_each(self.student.parameters(), config.clip)
        if step < config.freeze_epochs * self.steps_per_epoch:
            drop_gradients(self.student.last.parameters())
        if config.teacher == "last_step":  # the student before this step, for the next one
            self._follow(0.0)

    def after_step(self, step: int) -> None:
        """The teacher follows the student (5.3.1), or is one of its past (5.6.2)."""
        teacher = self.job.config.teacher
        if teacher == "momentum":
            self._follow(self.momentum)
        elif teacher == "copy" or (teacher == "last_epoch" and (step + 1) % self.steps_per_epoch == 0):
            self._follow(0.0)

    def _follow(self, momentum: float) -> None:
        """Parameters alone: batch statistics are the teacher's own (released code)."""
        for mine, theirs in _pairs(self.teacher, self.student):
            ema.follow(mine, theirs, momentum)

    def evaluate(self, step: int) -> dict[str, Any]:
        """The teacher is judged in every step."""
        return {}


def _pairs(teacher: Network, student: Network) -> list[tuple[nn.Module, nn.Module]]:
    """What the two have in common: all but the predictor."""
    return [(teacher.backbone, student.backbone), (teacher.head, student.head)]
