# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import resource

import numpy as np
from torch.utils.data import DataLoader, Dataset

from mmscfs.datasets import LoadImage

BLOCKS, SIZE, ROUNDS = 20, 3 * 2**20, 5  # below what NumPy has huge pages for


class Faults(Dataset):
    """How often a process asks the system for a page while it takes turns.

    It takes and frees 60 MB, which glibc would give back each time.
    """

    def __init__(self, path):
        self.path, self.load = path, LoadImage()

    def __len__(self):
        return 1

    def __getitem__(self, index):
        self.load(dict(img_path=self.path))
        before = 0
        for turn in range(ROUNDS + 1):
            blocks = [np.empty(SIZE, np.uint8) for _ in range(BLOCKS)]
            for block in blocks:
                block[::4096] = 1
            del blocks, block
            if turn == 0:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_worker_keeps_the_memory_that_it_frees(image_folder):
    path = str(next(image_folder.rglob('*.jpg')))
    pages = ROUNDS * BLOCKS * SIZE // 4096
    (faults,) = DataLoader(Faults(path), num_workers=1)
    assert faults < pages / 10
