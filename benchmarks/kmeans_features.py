"""What benchmarks/kmeans.py clusters: features of three kinds, float32 [n, d], and centroids to start from."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from launcher.spec import registry
from methods import backbones
from methods.data.photos import Photos

KINDS = ("network", "mixture", "noise")


def made(kind, n, d, k, runs="runs"):
    """(features, centroids [k, d], k of the features); of a network d is what it has."""
    generator = torch.Generator().manual_seed(0)
    if kind == "network":
        features = of_a_network(n, Path(runs))
    else:
        features = torch.randn(n, d, generator=generator)
    if kind == "mixture":  # of k Gaussians that overlap
        features += torch.randn(k, d, generator=generator)[torch.randint(k, (n,), generator=generator)]
    return features, features[torch.randperm(len(features), generator=generator)[:k]].clone()


@torch.no_grad()
def of_a_network(n, runs):
    """Of n patches of the embedded photographs, by the network of SimCLR's demo; it is trained first, in minutes, where
    `runs` does not hold it."""
    kept = runs / f"kmeans-features-{n}.npy"
    if kept.exists():
        return torch.from_numpy(np.load(kept))
    said = _sslrun("method=simclr", "recipe=demo", f"runs={runs}", "--json")
    run = Path(json.loads(said.splitlines()[-1])["path"])
    if not (run / "backbone.safetensors").exists():
        _sslrun("export", run.name, f"runs={runs}")
    backbone = backbones.build(registry.method("simclr").recipes["demo"]().method.backbone)
    backbone.trunk.load_state_dict(load_file(run / "backbone.safetensors"))
    backbone.eval()
    photos, parts = Photos("train", images=n), []
    for start in range(0, n, 512):
        patches = np.stack([np.asarray(photos.image(number)) for number in range(start, min(n, start + 512))])
        parts.append(backbone(torch.from_numpy(patches)[:, None]))
    np.save(kept, torch.cat(parts).numpy())
    return torch.cat(parts)


def _sslrun(*arguments):
    program = Path(sys.executable).with_name("sslrun")
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
