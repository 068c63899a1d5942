# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Processes of a test that meet: several test runs may share a machine."""

import os
import socket

import torch


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def become_rank(rank, port):
    """Make this process one of two, as torchrun would."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
