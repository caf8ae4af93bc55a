"""python benchmarks/data.py [--views swav|dino] [--parts] [--gpu --workers 16]        a minute; with --gpu two.

The data path beside the usual one of PIL and torchvision: JPEGs of 500 x 375 pixels, cut from the embedded photographs
and kept in memory, to the views of SwAV (2 x 224 + 6 x 96) or DINO (2 x 224 + 10 x 96).

The usual path decodes an image and then, for each crop, runs RandomResizedCrop, RandomHorizontalFlip, ColorJitter,
RandomGrayscale, a blur by PIL, ToTensor and Normalize, all in the worker. Ours is measured twice: what a worker does
(decode, crop, resize, the draws, the batch), and all of it, photometric stage on the CPU included. Times are CPU time
of one thread; the sides take turns on the same images. --parts adds what the parts of a worker's time would cost
otherwise. --gpu measures images a second, with all --workers, of both paths up to tensors on the GPU.
"""

import argparse
import io
import itertools
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import io as jpeg
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from methods.augment.resize import decoded, resized
from methods.augment.spec import AUGMENTATIONS, NORMALISATIONS, MultiCropConfig
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.data import photos
from methods.data.loader import Request, batches
from methods.data.prefetch import prefetched

WIDTH, HEIGHT = 500, 375
COLOURED = ("astronaut", "chelsea", "china", "coffee", "flower", "hubble_deep_field", "motorcycle_left", "rocket")
QUALITY = 96  # some 80 kB an image on average, as ImageNet's
BATCH = 32
LIMITS = {"workers": 4.0, "whole path": 1.3}
CONFIGS = {
    "swav": MultiCropConfig(backbone="vgg16_bn", augment="simclr"),
    "dino": MultiCropConfig(
        backbone="vgg16_bn", augment="byol", crop_scale=[0.3, 1.0], local_scale=[0.05, 0.3], local_crops=10
    ),
}


class Jpegs:
    """`count` JPEGs in memory, each another window of a photograph."""

    channels, classes, labels = 3, None, None

    def __init__(self, count):
        rng, self.files = np.random.default_rng(0), []
        for number in range(count):
            photograph = photos.load(COLOURED[number % len(COLOURED)]).convert("RGB")
            width = rng.uniform(0.6, 1.0) * min(photograph.width, photograph.height * WIDTH / HEIGHT)
            left, top = rng.random(2) * (photograph.width - width, photograph.height - width * HEIGHT / WIDTH)
            box = (left, top, left + width, top + width * HEIGHT / WIDTH)
            file = io.BytesIO()
            photograph.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box).save(file, "JPEG", quality=QUALITY)
            self.files.append(file.getvalue())

    def __len__(self):
        return len(self.files)

    def name_of(self, index):
        return f"{index}.jpg"

    def image(self, index):
        with Image.open(io.BytesIO(self.files[index])) as image:
            return image.convert("RGB")


class PilBlur:
    """As SwAV's and DINO's released pipelines blur; torchvision's GaussianBlur takes longer."""

    def __init__(self, sigma):
        self.sigma = sigma

    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=np.random.uniform(*self.sigma)))


class Usual:
    """The usual pipeline as a map-style dataset: float32 [C, S, S] of each crop."""

    def __init__(self, dataset, config):
        self.dataset, self.pipelines = dataset, []
        recipe = AUGMENTATIONS[config.augment]
        for view in range(config.global_crops):
            photometric = recipe.views[view % len(recipe.views)]
            self.pipelines.append(self.pipeline(config, photometric, config.image_size, config.crop_scale))
        local = self.pipeline(config, recipe.local, config.local_size, config.local_scale)
        self.pipelines += [local] * config.local_crops

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        image = self.dataset.image(int(index) % len(self.dataset))
        return [pipeline(image) for pipeline in self.pipelines]

    @staticmethod
    def pipeline(config, p, size, scale):
        mode = InterpolationMode(AUGMENTATIONS[config.augment].interpolation)
        steps = [
            transforms.RandomResizedCrop(size, scale=tuple(scale), interpolation=mode),
            transforms.RandomHorizontalFlip(p.flip),
            transforms.RandomApply([transforms.ColorJitter(p.brightness, p.contrast, p.saturation, p.hue)], p.jitter),
            transforms.RandomGrayscale(p.grey),
            transforms.RandomApply([PilBlur(p.sigma)], p.blur),
        ]
        if p.solarise:
            steps.append(transforms.RandomApply([transforms.Lambda(lambda x: ImageOps.solarize(x, 128))], p.solarise))
        return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(*NORMALISATIONS["imagenet"])])


def usual(dataset, config, ids):
    collate = torch.utils.data.default_collate
    return collate([Usual(dataset, config)[i] for i in ids])


def workers(dataset, config, ids, epoch):
    (batch,) = batches(dataset, MultiCropView.of(config, 0), [Request(np.array(ids), epoch, {})])
    return batch.images


def timed(work):
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def on_cpu(dataset, config, turns):
    stage, sides = Photometrics(config), {"usual": [], "workers": [], "whole path": []}
    for turn in range(-1, turns):
        ids = [(turn * BATCH + i) % len(dataset) for i in range(BATCH)]
        took = {
            "usual": timed(lambda ids=ids: usual(dataset, config, ids)),
            "workers": timed(lambda ids=ids, turn=turn: workers(dataset, config, ids, turn + 1)),
            "whole path": timed(lambda ids=ids, turn=turn: stage(workers(dataset, config, ids, turn + 1))),
        }
        for name, value in took.items():
            sides[name] += [value / BATCH] if turn >= 0 else []
    print(f"\nCPU ms an image, median of {turns} turns of {BATCH} images; 1 thread\n")
    for name, values in sides.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(sides["usual"], values, strict=True))
        low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
        limit = f"; at least {LIMITS[name]}" if name in LIMITS else ""
        print(f"{name:12} {statistics.median(values):7.2f}   {middle:5.2f} x cheaper ({low:.2f} to {high:.2f}{limit})")


def parts(dataset, config, turns):
    """CPU ms an image of each way to decode, and to make the crops of one image."""
    images = [dataset.image(i) for i in range(BATCH)]
    encoded = [torch.frombuffer(bytearray(dataset.files[i]), dtype=torch.uint8) for i in range(BATCH)]
    view = MultiCropView.of(config, 0)
    boxes = [view.draws(image, i, 0)[0] for i, image in enumerate(images)]
    mode = Image.Resampling[view.interpolation.upper()]

    def by_pil(gap):
        for image, groups in zip(images, boxes, strict=True):
            for resolution, group in zip(view.resolutions, groups, strict=True):
                for left, top, width, height in group:
                    box = (left, top, left + width, top + height)
                    side = (resolution.size, resolution.size)
                    np.asarray(image.resize(side, mode, box=box, reducing_gap=gap)).transpose(2, 0, 1).copy()

    def by_torch():
        for image, groups in zip(images, boxes, strict=True):
            pixels = decoded(image)
            for resolution, group in zip(view.resolutions, groups, strict=True):
                resized(pixels, group, resolution.size, view.interpolation)

    def half(i):
        image = Image.open(io.BytesIO(dataset.files[i]))
        image.draft("RGB", (WIDTH // 2, HEIGHT // 2))
        image.load()

    ways = {
        "decode: PIL": lambda: [dataset.image(i) for i in range(BATCH)],
        "decode: torchvision.io": lambda: [jpeg.decode_jpeg(each) for each in encoded],
        "decode: PIL, draft to half the size": lambda: [half(i) for i in range(BATCH)],
        "PIL image to array": lambda: [decoded(image) for image in images],
        "draws and boxes": lambda: [view.draws(image, i, 0) for i, image in enumerate(images)],
        "crops: PIL resize(box)": lambda: by_pil(None),
        "crops: PIL resize(box, reducing_gap=2)": lambda: by_pil(2.0),
        "crops: torch, bytes, channels last (array included)": by_torch,
    }
    took = {name: [] for name in ways}
    for _ in range(turns):
        for name, work in ways.items():
            took[name].append(timed(work) / BATCH)
    print()
    for name, values in took.items():
        print(f"{name:52} {statistics.median(values):6.3f} ms ({min(values):.3f} to {max(values):.3f})")


def rate(stream, batch, count):
    """Images a second from the 5th batch on, the GPU waited for at both ends."""
    for _ in itertools.islice(stream, 4):
        pass
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in itertools.islice(stream, count):
        pass
    torch.cuda.synchronize()
    return count * batch / (time.perf_counter() - began)


def on_gpu(dataset, config, processes, batch=64, count=60):
    device, stage = torch.device("cuda"), Photometrics(config)
    rng = np.random.default_rng(0)
    requests = (Request(rng.integers(0, len(dataset), batch), epoch, {}) for epoch in itertools.count())
    made = batches(dataset, MultiCropView.of(config, 0), requests, workers=processes, pin_memory=True)
    ours = rate((stage(each.images) for each in prefetched(made, device)), batch, count)
    images = next(made).images.to(device)
    made.close()
    alone = rate((stage(images) for _ in itertools.count()), batch, 4 * count)
    loader = torch.utils.data.DataLoader(
        Usual(dataset, config), batch, sampler=itertools.cycle(range(len(dataset))), num_workers=processes,
        pin_memory=True, multiprocessing_context="fork",
    )  # fmt: skip
    theirs = rate(([x.to(device, non_blocking=True) for x in each] for each in loader), batch, count // 4)
    print(f"\nimages a second to {torch.cuda.get_device_name()}, {processes} workers, batches of {batch}\n")
    print(f"{'usual path':28} {theirs:9.0f}")
    print(f"{'ours, prefetched, all of it':28} {ours:9.0f}   {ours / theirs:.2f} x")
    print(f"{'the photometric stage alone':28} {alone:9.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", choices=CONFIGS, help="both by default")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        parser.error("--gpu: there is none; leave it out")
    torch.set_num_threads(1)
    dataset = Jpegs(4 * BATCH)
    sizes = sum(map(len, dataset.files)) / len(dataset) / 1000
    print(f"{len(dataset)} JPEGs of {WIDTH} x {HEIGHT}, {sizes:.0f} kB each, quality {QUALITY}")
    for name, config in CONFIGS.items():
        if options.views in (None, name):
            local = f"{config.local_crops} x {config.local_size}"
            print(f"\n== {name}: {config.global_crops} x {config.image_size} + {local}, {config.augment}")
            on_cpu(dataset, config, options.turns)
            if options.parts:
                parts(dataset, config, options.turns)
            if options.gpu:
                on_gpu(dataset, config, options.workers)


if __name__ == "__main__":
    main()
