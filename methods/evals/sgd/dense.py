"""One layer of weights, or two with ReLU and dropout between them, and their steps of SGD."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch.nn.functional import cross_entropy


class Dense:
    """Logits of features. All weights lie in one tensor, so that ranks sum all gradients at once.

    widths: of the features, of the hidden layer if there is one, and the number of classes. Weights begin at 0, which
    suits one layer; see `draw`.
    """

    def __init__(self, widths: Sequence[int], device: torch.device):
        self.widths = tuple(widths)
        shapes = [(outputs, inputs + 1) for inputs, outputs in pairwise(widths)]  # the last column is the bias
        self._shapes = shapes
        self.values = torch.zeros(sum(rows * columns for rows, columns in shapes), device=device)
        self.velocity = torch.zeros_like(self.values)

    def layers(self, values: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Views [outputs, inputs + 1] of each layer in `values`, by default the weights."""
        values = self.values if values is None else values
        parts = values.split([rows * columns for rows, columns in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def kept(self) -> dict[str, torch.Tensor]:
        """All that steps change, to be kept and overwritten."""
        return {"weights": self.values, "velocity": self.velocity}

    def draw(self, seed: int) -> None:
        """Weights and biases uniform within 1 / sqrt(inputs), as torch.nn.Linear has them."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers():
            bound = (layer.shape[1] - 1) ** -0.5
            layer.copy_((2 * torch.rand(layer.shape, generator=generator) - 1) * bound)

    def dropped(self, images: int, share: float, seed: int) -> torch.Tensor | None:
        """What multiplies each hidden unit of `images`, float32 [images, hidden]: 0 for a `share` of them that `seed`
        chooses, else 1 / (1 - share). None where nothing is dropped."""
        if len(self.widths) == 2 or share == 0:
            return None
        device = self.values.device
        generator = torch.Generator(device).manual_seed(seed)
        drawn = torch.rand(images, self.widths[1], generator=generator, device=device)
        return (drawn >= share).float() / (1 - share)

    def __call__(self, features: torch.Tensor, factors: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [B, d] -> logits [B, classes]. factors: of the hidden units, as `dropped` makes them."""
        *hidden, last = self.layers()
        for layer in hidden:
            features = torch.addmm(layer[:, -1], features, layer[:, :-1].T).relu()
            features = features if factors is None else features * factors
        return torch.addmm(last[:, -1], features, last[:, :-1].T)

    def gradient(
        self, features: torch.Tensor, labels: torch.Tensor, factors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Of the sum of the images' cross-entropies, float32 [weights + 1]: that sum itself stands last."""
        with torch.enable_grad():
            self.values.requires_grad_()
            loss = cross_entropy(self(features, factors), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, self.values)
        self.values.requires_grad_(False)
        return torch.cat([gradient, loss.detach()[None]])

    def step(self, gradient: torch.Tensor, *, rate: float, momentum: float, weight_decay: float) -> None:
        """As torch.optim.SGD takes it; biases do not decay. gradient: float32 [weights], which is changed."""
        for change, layer in zip(self.layers(gradient), self.layers(), strict=True):
            change[:, :-1].add_(layer[:, :-1], alpha=weight_decay)
        self.velocity.mul_(momentum).add_(gradient)
        self.values.sub_(self.velocity, alpha=rate)
