"""What networks make of images: Sobel filters, which remove colour and raise local contrast (thesis 3.2.1, Figure 3.5),
or the normalisation that networks on ImageNet are trained with."""

import torch
from torch import nn

from methods.backbones.spec import GREY_MEAN, GREY_STD, RGB_MEAN, RGB_STD


class SobelInput(nn.Module):
    """[B, C, H, W] -> float [B, 2, H, W]: horizontal and vertical derivative of the grey image.

    uint8, or float that is normalised already: 3 channels by RGB_MEAN and RGB_STD, 1 by GREY_MEAN and GREY_STD. Grey is
    the plain mean of the channels. Nothing here is trained or saved.
    """

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("kernels", torch.stack([horizontal, horizontal.T])[:, None], persistent=False)
        self.register_buffer("std", torch.tensor(RGB_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(self.grey(images), self.kernels, padding=1)

    def grey(self, images: torch.Tensor) -> torch.Tensor:
        """The grey image, normalised: float [B, 1, H, W]."""
        if images.dtype == torch.uint8:
            return images.float().mean(dim=1, keepdim=True).div_(255).sub_(GREY_MEAN).div_(GREY_STD)
        if images.shape[1] == 1:
            return images
        # The mean of RGB_MEAN is GREY_MEAN, so that no constant is left over.
        return (images * self.std).mean(dim=1, keepdim=True).div_(GREY_STD)


class ColourInput(nn.Module):
    """[B, C, H, W] -> float [B, 3, H, W] of mean 0 and spread 1 over ImageNet; one channel stands for all three.

    uint8 is normalised here; float is taken to be so already, 3 channels by RGB_MEAN and RGB_STD, 1 by GREY_MEAN and
    GREY_STD. Nothing here is trained or saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(RGB_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.uint8:
            return (images.float() - 255 * self.mean) / (255 * self.std)
        if images.shape[1] == 1:
            return (images * GREY_STD + GREY_MEAN - self.mean) / self.std
        return images
