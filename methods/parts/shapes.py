"""What stands on a backbone, in numbers: plans count with it, and `heads.build` makes the layers. No torch."""

from dataclasses import dataclass
from itertools import pairwise


class Head:
    """What a plan asks of any head; a kind of one's own says what differs."""

    parameters = 0  # scalars
    kept = 0  # fp32 scalars of one input that wait for the backward pass, of which bf16 and fp16 take half
    scores = 0  # outputs that a temperature divides, fp32 in any precision
    normalised = False  # whether images meet in its batch statistics
    once = False  # whether an image meets it once, and not each of its views

    @property
    def macs(self) -> int:
        """Multiply-adds for one input; of each bias and the like one, too."""
        return self.parameters


@dataclass(frozen=True)
class Perceptron(Head):
    """Linear layers, with normalisation and activation in between. Without hidden widths it is one linear layer.

    widths: of the input, of each hidden layer, of the output. batch_norm: after each layer but the last. activation:
    relu | gelu. last_batch_norm: after the last, too; with last_shift=False its shift stays 0. last_bias: False leaves
    the last layer without. What the papers use:

    - SwAV (thesis 4.2.5): 2048, 2048, 128; SimCLR the same with last_batch_norm, without its shift
    - MoCo-v2: 2048, 2048, 128 without batch_norm
    - BYOL: projection 2048, 4096, 256 and predictor 256, 4096, 256
    - SMoG (4.1, "SMoG Setting"): projection 2048, 2048, 128 with last_batch_norm and predictor 128, 2048, 128; for
      transformers gelu and 256 in place of 128

    >>> Perceptron((2048, 2048, 128), last_batch_norm=True).parameters  # weights, then scales and shifts
    4460800
    """

    widths: tuple[int, ...]
    batch_norm: bool = True
    activation: str = "relu"
    last_batch_norm: bool = False
    last_bias: bool = True
    last_shift: bool = True

    @property
    def parameters(self) -> int:
        vectors = 2 if self.batch_norm else 1  # of a hidden layer: scale and shift, or a bias
        last = 2 if self.last_batch_norm else int(self.last_bias)
        weights = sum(before * after for before, after in pairwise(self.widths))
        return weights + vectors * sum(self.widths[1:-1]) + last * self.widths[-1]

    @property
    def kept(self) -> int:
        return (3 if self.batch_norm else 2) * sum(self.widths[1:-1])

    @property
    def normalised(self) -> bool:
        return self.last_batch_norm or (self.batch_norm and len(self.widths) > 2)


@dataclass(frozen=True)
class Classifier(Head):
    """A linear layer with a bias, whose outputs are scores of `classes`."""

    features: int
    classes: int

    @property
    def parameters(self) -> int:
        return self.classes * (self.features + 1)

    @property
    def scores(self) -> int:
        return self.classes


@dataclass(frozen=True)
class UnitRows(Head):
    """Products with `rows` vectors of length 1: the prototypes of SwAV (thesis 4.2.1)."""

    features: int
    rows: int

    @property
    def parameters(self) -> int:
        return self.rows * self.features

    @property
    def scores(self) -> int:
        return self.rows


@dataclass(frozen=True)
class _Of(Head):
    """Costs what `head` does."""

    head: Head

    @property
    def macs(self) -> int:
        return self.head.macs

    @property
    def kept(self) -> int:
        return self.head.kept

    @property
    def scores(self) -> int:
        return self.head.scores


class Outside(_Of):
    """`head`, which is no part of the network: the groups of SMoG, DeeperCluster's sub-classifiers."""


class Once(_Of):
    """`head` on what all views of an image come to together: the patches of a jigsaw."""

    once = True

    @property
    def parameters(self) -> int:
        return self.head.parameters

    @property
    def normalised(self) -> bool:
        return self.head.normalised


@dataclass(frozen=True)
class Bottleneck(Head):
    """DINO's head (thesis 5.3.1, 5.6.6): `body`, whose output gets length 1, and a linear layer to `outputs` with rows
    of length 1, or of trained length. outputs: 0 for neither (Figure 5.9, right): the body gives the scores."""

    body: Perceptron
    outputs: int
    fixed_length: bool = True

    @property
    def parameters(self) -> int:
        return self.body.parameters + self.outputs * (self.body.widths[-1] + 1)  # with the lengths of the rows

    @property
    def kept(self) -> int:
        return self.body.kept

    @property
    def scores(self) -> int:
        return self.outputs or self.body.widths[-1]

    @property
    def normalised(self) -> bool:
        return self.body.normalised
