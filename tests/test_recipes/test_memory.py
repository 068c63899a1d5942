# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The memory of a step, counted."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmscfs.engine import prepare_config
from mmscfs.recipes import StepMemory, memory, step_memory
from mmscfs.recipes.pretraining import build_model

CONFIGS = Path(__file__).parents[2] / 'configs'


def test_the_largest_batch_that_fits():
    moments = torch.tensor([10.0, 50.0, 0]), torch.tensor([20.0, 5.0, -1])
    step = StepMemory(100, *moments)
    # 100 + max(10 + 20 n, 50 + 5 n)
    assert [step.of(n) for n in (1, 2, 3)] == [155, 160, 170]
    frees = (149, 151, 155, 159, 160, 169, 170, 10_000)
    found = [step.largest(free) for free in frees]
    assert found == [0, 0, 1, 1, 2, 2, 3, (10_000 - 110) // 20]


class Toy(nn.Module):
    """A product of (n, 10) and (10, 1000), and its exponential."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 1000))
        self.register_buffer('norm', torch.zeros(3))

    def step(self, images):
        x = torch.ones(images, 10)
        (x @ self.weight).exp().sum().backward()


@pytest.mark.parametrize('num_states', [1, 2])
def test_what_is_alive_is_counted(num_states):
    model = Toy()
    found = memory.count_memory(model, model.step, num_states)
    # The weight, the optimizer's copies of it, and the buffer.
    assert found.held == 40_000 * (1 + num_states) + 12
    # x has 40 bytes an image. Product and exponential, 4,000 each, are alive
    # together, and in the backward pass the exponential and its gradient.
    # Then that makes the weight's, 40,000. Scalars take 4 each.
    alive = {n: found.of(n) - found.held for n in (1, 10, 100)}
    assert alive[1] == pytest.approx(40 + 4_000 + 40_000, abs=16)
    assert alive[10] == pytest.approx(400 + 40_000 + 40_000, abs=16)
    assert alive[100] == pytest.approx(4_000 + 800_000, abs=16)
    assert model.weight.grad is None


def test_steps_must_be_alike():
    model = Toy()

    def step(images):
        for _ in range(images):
            model.step(images)

    with pytest.raises(ValueError, match='more operations with more images'):
        memory.count_memory(model, step, 1)


def test_the_count_agrees_with_the_simulation(image_folder):
    """Peaks of allocated memory of fp16 steps, of torch for CUDA."""
    cfg = Config.fromfile(CONFIGS / 'scfs_r50.py')
    images = dict(data_root=str(image_folder), data_prefix='')
    cfg.train_dataloader.dataset.update(images)
    prepare_config(cfg)
    found = step_memory(cfg, build_model(cfg), is_half=True)
    for batch, simulated in ((32, 7.58e9), (64, 14.23e9), (256, 54.08e9)):
        assert found.of(batch) == pytest.approx(simulated, rel=0.03)
