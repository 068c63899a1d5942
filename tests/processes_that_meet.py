# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Processes of a test that meet: several test runs may share a machine."""

import ctypes
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

SPACES = ('net', 'uts', 'mnt')  # as /proc names them


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


class Node(NamedTuple):
    """A node: its name on the other, and a process on it, None on this one."""

    name: str
    pid: int | None

    @property
    def command(self):
        """What puts a command on the node."""
        if self.pid is None:
            return []
        return ['nsenter', f'--target={self.pid}', *['-n', '-u', '-m', '--']]

    def enter(self):
        """Put this process on the node."""
        for space in SPACES * (self.pid is not None):
            file = os.open(f'/proc/{self.pid}/ns/{space}', os.O_RDONLY)
            if ctypes.CDLL(None, use_errno=True).setns(file, 0):
                raise OSError(ctypes.get_errno(), f'cannot enter {space}')
            os.close(file)


@contextmanager
def two_nodes(version=4):
    """Two nodes, which see nothing but each other.

    Each has its own name for 127.0.1.1, as Debian does, and the other's for
    its address of an IP version. They are namespaces of Linux, where the
    system lets us make them; otherwise both are this machine.
    """
    tools = all(map(shutil.which, ('unshare', 'nsenter', 'ip')))
    new = ['unshare', '--net', '--uts', '--mount']
    if not tools or subprocess.run([*new, 'true']).returncode:
        yield [Node('127.0.0.1' if version == 4 else '::1', None)] * 2
        return
    addresses = {4: '10.213.0.{}/24', 6: 'fd00:213::{}/64'}
    places = [addresses[version].format(i) for i in (1, 2)]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        found = []
        for i in (0, 1):
            hosts = Path(folder, f'node{i}')
            hosts.write_text(
                f'127.0.0.1 localhost\n127.0.1.1 node{i}\n'
                f'{places[1 - i].split("/")[0]} node{1 - i}\n'
            )
            holder = subprocess.Popen(
                [*new, 'sh', '-ec', 'mount --bind "$0" /etc/hosts; '
                 'hostname "$1"; echo; exec sleep 600', hosts, hosts.name],
                stdout=subprocess.PIPE,
            )  # fmt: skip
            stack.callback(holder.wait)
            stack.callback(holder.kill)
            assert holder.stdout.read(1) == b'\n'
            found.append(Node(hosts.name, holder.pid))
        first, second = (str(node.pid) for node in found)
        ip = ['ip', 'link', 'add', 'eth0', 'netns', first, 'type', 'veth']
        subprocess.check_call([*ip, 'peer', 'name', 'eth0', 'netns', second])
        for node, place in zip(found, places, strict=True):
            for words in (
                f'address add {place} dev eth0' + ' nodad' * (version == 6),
                'link set eth0 up',
                'link set lo up',
            ):
                subprocess.check_call([*node.command, 'ip', *words.split()])
        yield found
