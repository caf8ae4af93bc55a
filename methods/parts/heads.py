"""What stands on a backbone while it trains and is thrown away afterwards: projections, predictors, prototypes."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrizations import weight_norm

from methods.parts.shapes import Bottleneck, Classifier, Head, Once, Perceptron, UnitRows

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class Headed(nn.Module):
    """A backbone with heads on it, under their names; those that are no part of the network left out. A method's own
    network says in `forward` what goes through which."""

    def __init__(self, backbone: nn.Module, heads: Mapping[str, Head]):
        super().__init__()
        self.backbone = backbone
        for name, head in heads.items():
            if head.parameters:
                self.add_module(name, build(head))

    def features(self, crops: Iterable[torch.Tensor]) -> torch.Tensor:
        """Crops of several resolutions, [V_i B, C, S_i, S_i] each -> [sum V_i B, d]: one pass of the backbone for each,
        so that a head may take all of them in one."""
        return torch.cat([self.backbone(images) for images in crops])


class ScoredByPrototypes(Headed):
    """A projection and prototypes: crops of several resolutions, float [V_i B, C, S_i, S_i] each -> (embeddings of
    length 1 [sum V_i B, d], their products with the prototypes [sum V_i B, K]), float32 (thesis 4.2.1)."""

    def forward(self, crops: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        projected = self.projection(self.features(crops))
        # In fp32: a score is divided by 0.05, and bf16 would be off by 8 %.
        with torch.autocast(projected.device.type, enabled=False):
            embeddings = normalize(projected.float())
            return embeddings, self.prototypes(embeddings)


def build(head: Head) -> nn.Module:
    """The layers of a head, with weights drawn from torch's generator. Raises TypeError for a kind of one's own."""
    match head:
        case Perceptron():
            return perceptron(head)
        case Classifier(features, classes):
            return nn.Linear(features, classes)
        case UnitRows(features, rows):
            return Prototypes(features, rows)
        case Bottleneck():
            return DINOHead(head)
        case Once(inner):
            return build(inner)
    raise TypeError(f"{type(head).__name__}: build its module in the network's own code")


def perceptron(shape: Perceptron) -> nn.Sequential:
    """[B, widths[0]] -> [B, widths[-1]]."""
    layers: list[nn.Module] = []
    for number, (before, width) in enumerate(pairwise(shape.widths)):
        last = number == len(shape.widths) - 2
        normalised = shape.last_batch_norm if last else shape.batch_norm
        # Normalisation takes any shift away.
        layers.append(nn.Linear(before, width, bias=not normalised and (shape.last_bias or not last)))
        if normalised:
            layers.append(nn.BatchNorm1d(width))
            layers[-1].bias.requires_grad_(shape.last_shift or not last)
        if not last:
            layers.append(ACTIVATIONS[shape.activation]())
    return nn.Sequential(*layers)


class DINOHead(nn.Module):
    """[B, d] -> scores [B, K] (thesis 5.3.1 and 5.6.6): a perceptron, L2 normalisation in a bottleneck, and a linear
    layer whose rows have length 1 (weight normalisation, Salimans & Kingma 2016), or lengths that are trained.

    Without the bottleneck no such layer follows, and the perceptron ends with K (Figure 5.9, right).
    """

    def __init__(self, shape: Bottleneck):
        super().__init__()
        self.perceptron = perceptron(shape.body)
        for module in self.perceptron.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.last: nn.Module | None = None
        if shape.outputs:
            self.last = weight_norm(nn.Linear(shape.body.widths[-1], shape.outputs, bias=False))
            length = self.last.parametrizations.weight.original0
            nn.init.ones_(length)
            length.requires_grad_(not shape.fixed_length)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.scores(self.projected(features))

    def projected(self, features: torch.Tensor) -> torch.Tensor:
        """All but the layer of scores: [B, d] -> [B, bottleneck], or the last hidden layer where there is none."""
        return self.perceptron(features) if self.last is not None else self.perceptron[:-1](features)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """What `projected` gives -> scores [B, K]. A layer of its own, so that it may be computed in fp32."""
        if self.last is None:
            return self.perceptron[-1](x)
        return self.last(normalize(x, eps=1e-6 if x.dtype == torch.float16 else 1e-12))


class Prototypes(nn.Linear):
    """Embeddings [B, d] -> their products with K prototypes [B, K] (thesis 4.2.1, the scores z): cosines, where both
    have length 1.

    SwAV and DeepCluster-v2. `normalise()` goes before every forward pass.
    """

    def __init__(self, features: int, prototypes: int):
        super().__init__(features, prototypes, bias=False)
        self.normalise()

    @torch.no_grad()
    def normalise(self) -> None:
        """Give every prototype length 1."""
        self.weight.copy_(normalize(self.weight))
