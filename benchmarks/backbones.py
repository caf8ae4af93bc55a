"""python benchmarks/backbones.py [--threads 2] [--rounds 12]        a minute.

Training steps (forward, backward, SGD) of the small backbones on a batch of 128 patches of 32 pixels, in turns within
one process. Each rate is the best of its rounds, which others on the machine disturb least; the ratio is to small_vgg,
the network of DeeperCluster's demo.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import torch

from methods import backbones

NAMES = ("small_vgg", "small_resnet", "small_vit")
BATCH, SIZE = 128, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    networks = {name: backbones.build(name).train() for name in NAMES}
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for name, net in networks.items()}
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    best = dict.fromkeys(NAMES, float("inf"))
    for _ in range(options.rounds):
        for name, network in networks.items():
            began = time.perf_counter()
            optimizers[name].zero_grad(set_to_none=True)
            network(images).square().mean().backward()
            optimizers[name].step()
            best[name] = min(best[name], time.perf_counter() - began)
    print("| backbone | images a second | of small_vgg's |\n|---|---|---|")
    for name in NAMES:
        print(f"| `{name}` | {BATCH / best[name]:,.0f} | {best['small_vgg'] / best[name]:.2f} |")


if __name__ == "__main__":
    main()
