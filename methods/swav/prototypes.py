"""The K prototypes that SwAV compares embeddings with: its last layer (thesis 4.2.1)."""

import torch
from torch import nn


class Prototypes(nn.Linear):
    """L2-normalised embeddings [..., d] -> scores z [..., K], their cosine similarities to prototypes of unit length.

    >>> prototypes = Prototypes(8, 3)
    >>> prototypes.normalise_()
    >>> prototypes(torch.zeros(4, 8)).shape
    torch.Size([4, 3])
    """

    def __init__(self, features: int, prototypes: int):
        super().__init__(features, prototypes, bias=False)

    @torch.no_grad()
    def normalise_(self) -> None:
        """Make unit vectors of the prototypes; before every step (released code), not between a forward pass and its
        backward."""
        self.weight.copy_(nn.functional.normalize(self.weight, dim=1))
