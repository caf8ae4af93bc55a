"""DINO (thesis chapter 5), top to bottom: student, teacher, targets, loss, centre.

In comments: A global crops, which the teacher sees, of V crops in all; B images of this rank; K outputs.
"""

from collections.abc import Sequence

import torch
from torch import nn

from methods import backbones
from methods.data.loader import Batch
from methods.dino.loss import distillation
from methods.dino.teacher import Centre, teacher_targets
from methods.engine.collapse import Watched, entropy_of_use, likeness
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.parts import ema, optim
from methods.parts.heads import Headed
from methods.parts.losses import mean_square
from methods.parts.schedules import cosine, linear


class Network(Headed):
    """g = h o f (5.3.1): crops of several resolutions, float [V_i B, C, S_i, S_i] each -> scores [sum V_i B, K],
    float32. The student may have a predictor between bottleneck and scores."""

    def forward(self, crops: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.scores(self.features(crops))

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """What the head says of the backbone's features, [N, d] -> [N, K]."""
        projected = self.head.projected(features)
        if hasattr(self, "predictor"):
            projected = self.predictor(projected)
        # In fp32: a score is divided by 0.04, and bf16 would be off by a tenth.
        with torch.autocast(projected.device.type, enabled=False):
            return self.head.scores(projected.float())

    @property
    def last(self) -> nn.Module:
        """The layer that gives the scores."""
        return self.head.perceptron[-1] if self.head.last is None else self.head.last

    @property
    def shared(self) -> nn.ModuleList:
        """What student and teacher have in common: all but the predictor."""
        return nn.ModuleList([self.backbone, self.head])


class DINO(Trainer):
    """Self-distillation without labels: the student predicts, from any crop, what the teacher says of a global one."""

    network_type = Network
    saved_as = ("student", "network")  # the teacher is exported: it is better than the student all along (5.6.2)

    def __init__(self, job: Job):
        super().__init__(job)
        config = self.config
        self.student, self.teacher = self.module, self.follower  # `network` is the student as it is called in training
        self.watched = Watched(config.outputs, use="teacher_use", single="teacher_entropy", alike="likeness")
        self.centre = Centre(config.outputs, momentum=config.centre_momentum, device=self.device)
        job.owners.add("centre", self.centre)

    def build_follower(self, student: Network) -> Network:
        """Without predictor, dropout and dropped paths."""
        teacher = Network(backbones.build(self.config.backbone), {"head": self.outline.heads["head"]})
        ema.begin(teacher.shared, student.shared)
        return teacher

    def optimizer(self, student: Network) -> torch.optim.Optimizer:
        return optim.make(self.config, optim.parameter_groups([student], weight_decay=self.config.weight_decay))

    def before_step(self, step: int) -> None:
        """Weight decay moves with time."""
        config = self.config
        decay = cosine(step, self.total_steps, config.weight_decay, config.final_weight_decay)
        optim.set_weight_decay(self.optimizers[0], decay)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eqs. 5.1 to 5.5: what the teacher says of the global crops, predicted from every other crop."""
        config, images, crops = self.config, len(batch.ids), self.crops(batch)
        with torch.no_grad():
            features = self.teacher.backbone(crops[0])
            teacher_outputs = self.teacher.scores(features).unflatten(0, (-1, images))  # g_t: [A, B, K]
        outputs = self.network(crops).unflatten(0, (-1, images))  # g_s: [V, B, K], the global crops first
        operation, centre = config.operation, self.centre.value
        if config.objective == "mse":
            # g_t - c, not sharpened (5.6.1).
            loss = mean_square(outputs, teacher_outputs - centre if operation == "centring" else teacher_outputs)
            figures = {"likeness": likeness(teacher_outputs[0])}  # no classes whose use would tell
        else:
            # The targets get less sharp at first (5.3.2).
            warmup = config.teacher_warmup_epochs * self.steps_per_epoch
            temperature = linear(step, warmup, config.warmup_teacher_temperature, config.teacher_temperature)
            how = {"operation": operation, "iterations": config.sinkhorn_iterations}
            targets = teacher_targets(teacher_outputs, centre, temperature=temperature, **how)
            loss, figures = distillation(outputs, targets, temperature=config.temperature)
            # Of features: what outputs have in common is centred away.
            figures |= {"teacher_use": entropy_of_use(targets), "likeness": likeness(features[:images])}
        self.centre.update(teacher_outputs)  # after the loss that used it
        return loss, figures

    def after_backward(self, step: int) -> None:
        """Clip. For `freeze_epochs` the last layer keeps its first weights: neither decay nor momentum move it."""
        config = self.config
        if config.clip is not None:
            optim.clip_each(self.student.parameters(), config.clip)
        if step < config.freeze_epochs * self.steps_per_epoch:
            optim.drop_gradients(self.student.last.parameters())
        if config.teacher == "last_step":  # before the optimiser, so that the next step's teacher is one step old
            self._follow(0.0)

    def after_step(self, step: int) -> None:
        """The teacher follows the student with an inertia that grows to 1 (5.3.1), or is a copy of it (5.6.2)."""
        config = self.config
        if config.teacher == "momentum":
            self._follow(cosine(step, self.total_steps, config.teacher_momentum, config.final_teacher_momentum))
        elif config.teacher == "copy" or (config.teacher == "last_epoch" and (step + 1) % self.steps_per_epoch == 0):
            self._follow(0.0)

    def _follow(self, momentum: float) -> None:
        """Parameters alone: batch statistics are the teacher's own (released code)."""
        ema.follow(self.teacher.shared, self.student.shared, momentum)
