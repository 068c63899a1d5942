# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Ports for processes that meet: several test runs may share a machine."""

import socket


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]
