# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SCFS's losses as plain loops over the equations, one image at a time."""

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


def search_loss(student_local, teacher_search, tau, tau_teacher):
    """Eq. 9 as a mean over its terms: (N, B, K), (G, N, B, K)."""
    terms = []
    for g in range(len(teacher_search)):
        for n in range(len(student_local)):
            for b in range(student_local.shape[1]):
                target = softmax(teacher_search[g, n, b], tau_teacher)
                terms.append(cross_entropy(target, student_local[n, b], tau))
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
