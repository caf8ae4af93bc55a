"""Each step of the linear probe goes along the mean over its batch, at rates that are for 256 images and fall to 0."""

import math

import pytest
import torch

from methods.evals.linear.protocol import Probes

BATCH, EPOCHS, RATES = 64, 3, [0.1, 3.0]


def test_steps_take_the_mean_gradient_at_rates_per_256_images_along_half_a_cosine(evaluated, monkeypatch):
    steps, gradient, step = [], Probes.gradient, Probes.step

    def asked(self, features, labels):
        found, losses = gradient(self, features, labels)
        steps.append([self.rates.clone(), found.clone(), len(labels)])
        return found, losses

    def took(self, given, share, **options):
        steps[-1] += [given.clone(), share]
        step(self, given, share, **options)

    monkeypatch.setattr(Probes, "gradient", asked)
    monkeypatch.setattr(Probes, "step", took)
    evaluated.scores("protocol=linear", f"linear.epochs={EPOCHS}", f"linear.batch={BATCH}", f"linear.rates={RATES}")

    assert len(steps) % EPOCHS == 0 and len(steps) > EPOCHS
    for number, (rates, of_the_sum, images, given, share) in enumerate(steps):
        assert images == BATCH
        torch.testing.assert_close(given, of_the_sum / BATCH)
        torch.testing.assert_close(rates, torch.tensor(RATES) * BATCH / 256)
        assert share == pytest.approx(0.5 * (1 + math.cos(math.pi * number / len(steps))))
