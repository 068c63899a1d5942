# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SCFS's losses as plain loops over the equations, one image at a time."""

import math

import torch


def softmax(x, temperature):
    """Eq. 1 for one vector."""
    weights = [torch.exp(v / temperature) for v in x]
    total = sum(weights)
    return torch.stack([w / total for w in weights])


def cross_entropy(target, logits, temperature):
    """-P' log P for one pair."""
    log_p = torch.log(softmax(logits, temperature))
    return -sum(t * p for t, p in zip(target, log_p, strict=True))


def dino_loss(student, teacher, center, tau, tau_teacher):
    """Eqs. 2-4 as a mean over pairs and images: (V, B, K), (2, B, K)."""
    terms = []
    for t in range(len(teacher)):
        for v in range(len(student)):
            if t == v:
                continue
            for b in range(teacher.shape[1]):
                target = softmax(teacher[t, b] - center, tau_teacher)
                terms.append(cross_entropy(target, student[v, b], tau))
    return sum(terms) / len(terms)


def search_loss(student_local, teacher_search, tau, tau_teacher, pairs=None):
    """Eq. 9 as a mean over its terms: (N, B, K), (G, N, B, K).

    Terms of pairs (g, n, b) that are False in ``pairs`` count as 0.
    """
    terms = []
    for g in range(len(teacher_search)):
        for n in range(len(student_local)):
            for b in range(student_local.shape[1]):
                target = softmax(teacher_search[g, n, b], tau_teacher)
                term = cross_entropy(target, student_local[n, b], tau)
                left_out = pairs is not None and not pairs[g, n, b]
                terms.append(0 * term if left_out else term)
    return sum(terms) / len(terms)


def search(local_map, global_map):
    """Eqs. 5-7 for one image: (C, h, w) and (C, H, W) -> (C, H, W)."""
    channels, height, width = local_map.shape
    query = torch.zeros(channels, dtype=local_map.dtype)
    for y in range(height):
        for x in range(width):
            query = query + local_map[:, y, x]
    query = query / (height * width)
    out = torch.zeros_like(global_map)
    for y in range(global_map.shape[1]):
        for x in range(global_map.shape[2]):
            key = global_map[:, y, x]
            norms = query.square().sum().sqrt() * key.square().sum().sqrt()
            attention = (query * key).sum() / norms
            out[:, y, x] = attention * key
    return out


def bilinear(maps, y, x):
    """The value of maps (C, H, W) at a point; cell i has its center at i."""
    height, width = maps.shape[1:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    value = torch.zeros_like(maps[:, 0, 0])
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            if weight > 0:
                value = value + weight * maps[:, row, column]
    return value


def roi_crop(crop, local_map, other, global_map):
    """What a view shows, cut out of another's map (C, H, W); None if nothing.

    Crops are (left, top, right, bottom, flipped). RoIAlign: each cell of the
    result is the mean over as many points as it covers cells, rounded up.
    """
    rows, columns = local_map.shape[1:]
    height, width = global_map.shape[1:]
    left, top = max(crop[0], other[0]), max(crop[1], other[1])
    right, bottom = min(crop[2], other[2]), min(crop[3], other[3])
    if left >= right or top >= bottom:
        return None
    x_scale = width / (other[2] - other[0])
    y_scale = height / (other[3] - other[1])
    left, right = ((x - other[0]) * x_scale for x in (left, right))
    top, bottom = ((y - other[1]) * y_scale for y in (top, bottom))
    if other[4]:
        left, right = width - right, width - left
    cell_height, cell_width = (bottom - top) / rows, (right - left) / columns
    down, across = math.ceil(cell_height), math.ceil(cell_width)
    out = torch.zeros_like(global_map[:, :1, :1]).repeat(1, rows, columns)
    for row in range(rows):
        for column in range(columns):
            points = [
                bilinear(
                    global_map,
                    top + (row + (i + 0.5) / down) * cell_height - 0.5,
                    left + (column + (j + 0.5) / across) * cell_width - 0.5,
                )
                for i in range(down)
                for j in range(across)
            ]
            mirrored = crop[4] != other[4]
            place = columns - 1 - column if mirrored else column
            out[:, row, place] = sum(points) / len(points)
    return out
