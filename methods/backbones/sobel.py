"""Sobel input: fixed filters that remove colour and raise local contrast (thesis 3.2.1, Figure 3.5)."""

import torch
from torch import nn

# Mean and spread of grey levels over ImageNet's three channels; a constant shift is removed by the filters anyway.
GREY_MEAN, GREY_STD = 0.449, 0.226


class SobelInput(nn.Module):
    """uint8 [B, C, H, W] -> float [B, 2, H, W]: horizontal and vertical derivative of the grey image.

    Grey is the plain mean of the channels. Nothing here is trained or saved.
    """

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("kernels", torch.stack([horizontal, horizontal.T])[:, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.float().mean(dim=1, keepdim=True).div_(255).sub_(GREY_MEAN).div_(GREY_STD)
        return nn.functional.conv2d(grey, self.kernels, padding=1)
