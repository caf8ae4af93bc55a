"""What stands on a backbone while it trains and is thrown away afterwards: projections, predictors, prototypes."""

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrizations import weight_norm

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def perceptron(
    widths: Sequence[int], *, batch_norm: bool = True, activation: str = "relu", last_batch_norm: bool = False
) -> nn.Sequential:
    """[B, widths[0]] -> [B, widths[-1]]: linear layers, with normalisation and activation in between.

    batch_norm: after each but the last. activation: relu | gelu. last_batch_norm: after the last, too. Without hidden
    widths it is one linear layer. What the papers use:

    - SwAV (thesis 4.2.5): 2048, 2048, 128; SimCLR the same with last_batch_norm
    - MoCo-v2: 2048, 2048, 128 without batch_norm
    - BYOL: projection 2048, 4096, 256 and predictor 256, 4096, 256
    - SMoG (4.1, "SMoG Setting"): projection 2048, 2048, 128 with last_batch_norm and predictor 128, 2048, 128; for
      transformers gelu and 256 in place of 128
    """
    layers: list[nn.Module] = []
    for number, (before, width) in enumerate(itertools.pairwise(widths)):
        last = number == len(widths) - 2
        normalised = last_batch_norm if last else batch_norm
        layers.append(nn.Linear(before, width, bias=not normalised))  # normalisation takes any shift away
        if normalised:
            layers.append(nn.BatchNorm1d(width))
        if not last:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class DINOHead(nn.Module):
    """[B, d] -> scores [B, K] (thesis 5.3.1 and 5.6.6): a perceptron of `layers` linear layers, L2 normalisation in a
    bottleneck, and a linear layer whose rows have length 1 (weight normalisation, Salimans & Kingma 2016).

    Without the L2 bottleneck no such layer follows, and the perceptron ends with K (Figure 5.9, right).
    """

    def __init__(
        self,
        features: int,
        outputs: int = 65_536,
        *,
        layers: int = 3,
        hidden: int = 2048,
        bottleneck: int | None = 256,
        batch_norm: bool = False,
        activation: str = "gelu",
        fixed_length: bool = True,
    ):
        """features: d; outputs: K; bottleneck: None goes without. fixed_length: the rows of the last layer keep length
        1; their lengths are trained otherwise."""
        super().__init__()
        widths = [features, *[hidden] * (layers - 1), outputs if bottleneck is None else bottleneck]
        self.perceptron = perceptron(widths, batch_norm=batch_norm, activation=activation)
        for module in self.perceptron.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.last: nn.Module | None = None
        if bottleneck is not None:
            self.last = weight_norm(nn.Linear(bottleneck, outputs, bias=False))
            length = self.last.parametrizations.weight.original0
            nn.init.ones_(length)
            length.requires_grad_(not fixed_length)

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
