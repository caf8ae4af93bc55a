"""Photometric operators on batches, each image with parameters of its own; on any device, and on a GPU no kernel waits
for the host.

Images are float32 [N, C, H, W] in [0, 1], C = 3 or 1 (grey, whose grey version is itself, so that saturation, hue and
grey leave it alone). They mean what torchvision's functional operators of the same names mean for one image; its v2 and
kornia have one set of parameters, or one order of a jitter, for a whole batch, which is why these are here.
"""

import torch
from torch.nn.functional import pad

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in the grey image, as torchvision has them


def grey(images: torch.Tensor) -> torch.Tensor:
    """[N, 1, H, W]: the luminance of each pixel (ITU-R BT.601)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def blend_(images: torch.Tensor, keep: torch.Tensor, pixel: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """In place: keep x + pixel grey(x) + mean <grey(x)>, cut to [0, 1]; <> is the mean over an image's pixels.

    keep, pixel, mean: [N]. With a factor f, brightness is (f, 0, 0), contrast (f, 0, 1 - f), saturation (f, 1 - f, 0):
    one form for all three, so that a batch in which every image gets another of them is one pass.
    """
    luma = grey(images)
    # Row by row: the mean of a whole image at once would be summed in another order with other threads and batches.
    level = _column(mean) * luma.mean(3, keepdim=True).mean(2, keepdim=True)
    base = torch.addcmul(level, luma, _column(pixel))
    return images.mul_(_column(keep)).add_(base).clamp_(0, 1)


def shift_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotate the colour circle of HSV by `turns` [N], from -1 to 1; saturation and value stay. Grey pixels stay."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)  # [N, H, W]
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp_min(torch.finfo(chroma.dtype).tiny)  # a grey pixel has numerators of 0
    hue = torch.where(
        value == red,
        (green - blue).div_(divisor),
        torch.where(value == green, (blue - red).div_(divisor).add_(2), (red - green).div_(divisor).add_(4)),
    )  # -1 to 5, in sixths of the circle
    # Smith 1978: red, green and blue lie 5, 3 and 1 sixths along; each is `value` less a part of the chroma.
    along = 5 - 2 * torch.arange(3, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    place = along + 6 * (1 + _column(turns))  # [N, 3, 1, 1]; a full turn more, so that the sum is positive
    part = hue.unsqueeze(1).add(place).div_(6).frac_().mul_(6)
    part = part.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)  # min(k, 4 - k) between 0 and 1
    return torch.addcmul(value.unsqueeze(1), part, chroma.unsqueeze(1), value=-1)


def blur(images: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Gaussian of standard deviation `sigma` [N] > 0 pixels, over 2 radius + 1 pixels each way, images mirrored at
    their borders; `radius` is below the image's side."""
    taps = torch.arange(radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)  # [N, radius + 1]
    weights = weights / (2 * weights.sum(1, keepdim=True) - 1)
    for dim in (2, 3):
        # One tap a pass, the two sides of the kernel together: cheaper than a convolution with a group an image.
        side = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded, length = pad(images, side, mode="reflect"), images.shape[dim]
        images = padded.narrow(dim, radius, length) * _column(weights[:, 0])
        for tap in range(1, radius + 1):
            pair = padded.narrow(dim, radius - tap, length) + padded.narrow(dim, radius + tap, length)
            images.addcmul_(pair, _column(weights[:, tap]))
    return images


def solarise(images: torch.Tensor) -> torch.Tensor:
    """Values of at least one half are inverted (BYOL, Appendix C)."""
    return torch.where(images < 0.5, images, 1 - images)


def standardise(patches: torch.Tensor) -> torch.Tensor:
    """Each patch by itself, over its pixels and channels, to mean 0 and variance 1: uint8 [..., C, S, S] -> float32 of
    that shape (Kolesnikov et al., CVPR 2019, supplement, Section 1).

    A deviation counts as 1 / sqrt(C S S) levels at least, as in their code (tf.image.per_image_standardization): a
    patch of one colour becomes 0. What is summed are whole numbers, without rounding: the same bits on any device.

    >>> standardise(torch.tensor([[[[0, 2], [4, 6]]]], dtype=torch.uint8))[0, 0]
    tensor([[-1.3416, -0.4472],
            [ 0.4472,  1.3416]])
    """
    levels = patches.to(torch.float64, memory_format=torch.contiguous_format)
    count = levels.shape[-3:].numel()
    total, squares = (each.sum((-3, -2, -1), keepdim=True) for each in (levels, levels.square()))
    deviation = (count * squares - total.square()).sqrt_().div_(count).clamp_min_(count**-0.5)
    return levels.sub_(total / count).div_(deviation).float()


def _column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)
