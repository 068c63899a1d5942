# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How much memory a training step takes, and how large a batch fits."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmscfs.datasets.samplers import SampleKey

SHARE = 0.85  # of the free memory; the rest is for libraries and workers
# On a GPU the head works on 2**24 cosines at a time. That this takes three
# tensors of fp32 was fitted to the simulation (docs/en/speed.md).
CHUNKS = 3 * 4 * 2**24
PROCESS = 0.9e9  # bytes of a process on a CPU, before its model
OPTIMIZER_STATES = {'SGD': 1, 'LARS': 1}  # copies of the weights; else 2


class StepMemory(NamedTuple):
    """The bytes that a training step takes at most, for any batch.

    Attributes:
        held (float): Weights, buffers and the optimizer's state.
        steady (Tensor): What else is alive after each of the step's T
            operations, whatever the batch, shape (T,).
        growing (Tensor): The same of each image, shape (T,).

    Example:
        >>> moments = torch.tensor([10.0, 50.0]), torch.tensor([20.0, 5.0])
        >>> memory = StepMemory(100, *moments)
        >>> memory.of(1), memory.of(2), memory.largest(160)
        (155.0, 160.0, 2)
    """

    held: float
    steady: Tensor
    growing: Tensor

    def of(self, batch: int) -> float:
        """Return the bytes of a step of a batch."""
        return self.held + (self.steady + batch * self.growing).max().item()

    def largest(self, free: float) -> int:
        """Return the largest batch that fits into free bytes, 0 if none."""
        room = free - self.held - self.steady
        if room.min() < 0:
            return 0
        grows = self.growing > 0
        return int((room[grows] / self.growing[grows]).min())


def step_memory(cfg: Config, model: BaseModel, is_half: bool) -> StepMemory:
    """Count the memory of a pre-training's step, by two steps on the CPU.

    Of two and of three images of the data set: what is alive after each
    operation grows by as much with every further image. On a GPU these are
    the same tensors; what its libraries work in comes on top. This is an
    estimate, which nobody has measured on one. With one constant fitted it
    agrees within 4% with a simulation of torch's allocations there
    (docs/en/speed.md).

    Args:
        cfg (Config): Of the pre-training, as ``prepare_config`` left it.
        model (BaseModel): Its algorithm, built; its weights stay, statistics
            of batch norm move.
        is_half (bool): Whether it trains in fp16 or bf16.

    Raises:
        ValueError: The two steps differ.
        FileNotFoundError: The data set is missing.
    """
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    sample = dataset[SampleKey(0)]

    def step(images: int) -> None:
        data = default_collate([sample] * images)
        with torch.autocast('cpu', torch.bfloat16, enabled=is_half):
            data = model.data_preprocessor(data, True)
            losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()

    model.train()
    kind = str(cfg.optim_wrapper.optimizer.type).split('.')[-1]
    found = count_memory(model, step, OPTIMIZER_STATES.get(kind, 2))
    return found._replace(held=found.held + CHUNKS)


def count_memory(
    model: nn.Module, step: Callable[[int], Any], num_states: int
) -> StepMemory:
    """Count the memory of a step from what it keeps alive.

    Args:
        model (nn.Module): What is trained, on the CPU.
        step (Callable): Runs forward and backward pass of so many images.
        num_states (int): Copies of the weights in the optimizer's state.

    Raises:
        ValueError: The step has other operations with three images than with
            two.
    """
    held = sum(t.nbytes for t in model.buffers())
    for parameter in model.parameters():
        held += parameter.nbytes * (1 + num_states * parameter.requires_grad)
    histories = []
    for images in (2, 3):
        model.zero_grad()
        with torch.compiler.set_stance('force_eager'), Alive(model) as alive:
            step(images)
        histories.append(torch.tensor(alive.history, dtype=torch.float64))
    model.zero_grad()
    two, three = histories
    if len(two) != len(three):
        raise ValueError('a step has more operations with more images')
    return StepMemory(held, 3 * two - 2 * three, three - two)


class Alive(TorchDispatchMode):
    """Records how many bytes of tensors are alive after each operation.

    Args:
        model (nn.Module): Whose parameters and buffers do not count.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.history: list[int] = []
        self.bytes = 0
        # Storages by their address, kept alive by nothing here.
        own = (*model.parameters(), *model.buffers())
        self.known: dict[int, Any] = {
            tensor.untyped_storage()._cdata: None for tensor in own
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note what it made."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.note(value.untyped_storage())
        self.history.append(self.bytes)
        return result

    def note(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.bytes += size
            forget = partial(self.forget, key, size)
            self.known[key] = weakref.ref(storage, forget)

    def forget(self, key: int, size: int, _: Any) -> None:
        """Count a storage no more."""
        del self.known[key]
        self.bytes -= size
