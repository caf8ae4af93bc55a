"""Fine-tuning of the whole network with all labels or a few (thesis Tables 4.1, 5.7 and 5.8; SMoG, Table 4)."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from launcher.errors import InputError
from methods.evals.settings import Settings, SomeImages, Steps

FEW = 0.05  # below this share the published rates of 1 % count, from it on those of 10 %: the limit is ours


@dataclass(frozen=True)
class Tuning:
    """Rates are those of a step, whatever the batch, unless `of` says for how many images they are given."""

    optimizer: str
    epochs: int
    batch: int
    rate: float
    head_rate: float
    weight_decay: float
    of: int | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    rand_augment: int = 0
    erasing: float = 0.0
    drop_path: float = 0.0  # of transformers

    @property
    def together(self) -> int:
        """Images that a rank takes at once, or none of them: the pairs of mixtures."""
        return 2 if self.mixup or self.cutmix else 1


# eval_semisup.py of facebookresearch/swav, 8 GPUs with 32 images each; the rates of 1 % are its README's.
SWAV = Tuning("sgd", 20, 256, 0.01, 0.2, 0.0)
SWAV_FEW = replace(SWAV, rate=0.02, head_rate=5.0)
DROPS, FACTOR = (0.6, 0.8), 0.2  # after these shares of the epochs, 12 and 16 of 20, a rate is so much of what it was
# main.py of facebookresearch/deit, by which the thesis goes (5.5.3), without repeated augmentation and averaged
# weights. On other images than ImageNet the authors take smaller rates: docs/evaluation.md has them.
DEIT = Tuning(
    "adamw",
    epochs=300,
    batch=1024,
    rate=5e-4,
    head_rate=5e-4,
    weight_decay=0.05,
    of=512,
    smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    rand_augment=9,
    erasing=0.25,
    drop_path=0.1,
)
WARMUP = 5  # epochs
START, FLOOR = 0.001, 0.01  # of the rates, which begin at 1e-6 and end at 1e-5 where they are 1e-3
RECIPES = ("swav", "deit")


@dataclass
class Finetune(SomeImages, Settings):
    """What is not given is the recipe's: see RECIPES."""

    name, title, place, zero, trains = "finetune", "fine-tuning", 10, ("weight_decay",), True
    scores: ClassVar = {"top1": "top-1", "top5": "top-5"}
    recipe: str = "swav"  # swav | deit
    epochs: int | None = None
    batch: int | None = None  # images a step, over all ranks
    rate: float | None = None  # of the trunk
    head_rate: float | None = None  # of the classifier on it
    weight_decay: float | None = None

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("recipe", self.recipe in RECIPES, "no such recipe", f"use {' or '.join(RECIPES)}")

    def planned(self, images: int | None, ranks: int = 1) -> Steps:
        recipe, some = self.chosen(self.share), self.learnt_of(images)
        whole = self.share == 1 and some is not None  # of a share there is one of each class, which may be more
        batch = self.shared(recipe, ranks, some if whole else math.inf)
        return Steps.of(min(batch, some or batch), some, epochs=recipe.epochs)

    def refuse_unshared(self, ranks: int) -> None:
        """What does not share out is left out of a step, as long as something is left."""
        self.shared(self.chosen(self.share), ranks)

    def shared(self, recipe: Tuning, ranks: int, images: float = math.inf) -> int:
        """Images a step, over all ranks, of so many in all. Raises InputError where that is fewer than two, of which
        there are no batch statistics."""
        most, part = int(min(recipe.batch, images)), recipe.together * ranks
        if (batch := most // part * part) < 2:
            reason = f"{most} images a step do not share out to {ranks} ranks"
            raise InputError.of("finetune.batch", recipe.batch, reason, "use fewer ranks, or more images")
        return batch

    def chosen(self, share: float) -> Tuning:
        """The recipe for this share of the training images, with what was given."""
        usual = DEIT if self.recipe == "deit" else SWAV_FEW if share < FEW else SWAV
        names = "epochs", "batch", "rate", "head_rate", "weight_decay"
        given: dict[str, Any] = {n: value for n in names if (value := getattr(self, n)) is not None}
        return replace(usual, **given)
