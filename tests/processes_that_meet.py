# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Processes of a test that meet: several test runs may share a machine."""

import multiprocessing
import os
import socket
import time

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


def run_pair(target, *args, seconds=60):
    """Call a function with a rank, a port and arguments in two processes.

    Returns:
        list[int | None]: Their exit codes, None of one that had to be killed.
    """
    context, port = multiprocessing.get_context('fork'), free_port()
    pair = [
        context.Process(target=target, args=(rank, port, *args))
        for rank in (0, 1)
    ]
    for process in pair:
        process.start()
    end = time.monotonic() + seconds
    for process in pair:
        process.join(max(0, end - time.monotonic()))
    codes = [process.exitcode for process in pair]
    for process in pair:  # those that wait for each other
        process.kill()
        process.join()
    return codes
