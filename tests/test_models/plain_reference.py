# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A step of SCFS and DINO as plain loops over the equations."""

import math

import torch
import torch.nn.functional as F

# The method's own settings, by their names in a config.
DEFAULTS = dict(
    student_temp=0.1,
    teacher_temp=0.04,
    loss_weight=1.0,
    global_weight=0.5,
    search_weight=0.5,
    search_views='all',
    search=dict(type='SoftFeatureSearch'),
)


def softmax(x, temperature):
    """Eq. 1 for one vector."""
    weights = [torch.exp(v / temperature) for v in x]
    total = sum(weights)
    return torch.stack([w / total for w in weights])


def cross_entropy(target, p):
    """-P' log P for one pair."""
    return -sum(t * torch.log(v) for t, v in zip(target, p, strict=True))


def mean(terms):
    terms = list(terms)
    return sum(terms) / len(terms)


def pairs_of_views(student, teacher, center, tau, tau_teacher):
    """P' and P of Eqs. 2-4, of all images: (V, B, K), (2, B, K)."""
    for t in range(len(teacher)):
        for v in range(len(student)):
            for b in range(teacher.shape[1]):
                if t != v:
                    yield (
                        softmax(teacher[t, b] - center, tau_teacher),
                        softmax(student[v, b], tau),
                    )


def dino_loss(*args):
    """Eqs. 2-4 as a mean over the pairs."""
    return mean(cross_entropy(*pair) for pair in pairs_of_views(*args))


def soft_search(crop, local_map, other, global_map):
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


def roi_search(crop, local_map, other, global_map):
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


# A loop for each search operator, from crop and map of the view that searches
# and of the one that is searched; None if there is nothing to find.
SEARCHES = dict(SoftFeatureSearch=soft_search, RoIFeatureSearch=roi_search)


def scfs_step(model, views, crops, **settings):
    """Eqs. 1-11 from the backbone's outputs on.

    Views go through the networks in the batches that batch norm is defined
    on: global views, local views, and all that the search found in a layer.

    Args:
        model (nn.Module): A DINO or an SCFS, whose networks and centers are
            used.
        views (list[Tensor]): Two global, then N local views of B images.
        crops (list): Crop b of view v at [v][b].
        **settings: Those of DEFAULTS that differ.

    Returns:
        tuple: Every loss and figure by name, and for every center the mean
        output of the teacher, last layer first.
    """
    settings = DEFAULTS | settings
    temperatures = settings['student_temp'], settings['teacher_temp']
    head, teacher = model.head, model.teacher
    search = SEARCHES[settings['search']['type']]

    def by_view(x):
        return x.unflatten(0, (-1, len(views[0])))

    def cosines(network, maps):
        x = network.neck.mlp(maps[-1].mean((2, 3)))
        x = x / x.norm(dim=-1, keepdim=True)
        w = network.neck.prototypes.weight
        return by_view(x @ (w / w.norm(dim=-1, keepdim=True)).T)

    s_global = model.backbone(torch.cat(views[:2]))
    s_local = model.backbone(torch.cat(views[2:])) if views[2:] else None
    with torch.no_grad():
        t_global = teacher.backbone(torch.cat(views[:2]))
        t_cosines = cosines(teacher, t_global)
    s_cosines = [cosines(model, maps) for maps in (s_global, s_local) if maps]
    center = head.center.value
    args = torch.cat(s_cosines), t_cosines, center, *temperatures
    features = F.normalize(t_global[-1].mean((2, 3)), dim=-1)
    figures = dict(
        loss_dino=settings['loss_weight'] * dino_loss(*args),
        teacher_entropy=mean(
            cross_entropy(p, p) for p, _ in pairs_of_views(*args)
        ),
        teacher_student_kl=mean(
            sum(p * torch.log(p / q)) for p, q in pairs_of_views(*args)
        ),
        center_norm=center.square().sum().sqrt(),
        feature_std=features.std(0).mean() * features.shape[1] ** 0.5,
    )
    means = [t_cosines.mean((0, 1))]
    if not hasattr(model, 'search_neck'):
        return figures, means

    # Places of the views that search and are searched.
    among_global = s_local is None
    places = [
        (query if among_global else query + 2, query, key)
        for key in dict(all=[0, 1], first=[0], none=[])[
            settings['search_views']
        ]
        for query in ([1 - key] if among_global else range(len(views) - 2))
    ]
    for i, name in enumerate(head.layer_names):
        output = int(name.removeprefix('layer')) - 2  # layer2 is the first
        project = model.search_neck.projectors[i]
        t_project = teacher.search_neck.projectors[i]
        center = head.search_centers[i].value
        with torch.no_grad():
            t_layer = by_view(t_project(t_global[output]))
        args = by_view(project(s_global[output])), t_layer, center
        figures[f'loss_{name}_global'] = settings['global_weight'] * dino_loss(
            *args, *temperatures
        )
        figures[f'{name}_teacher_entropy'] = mean(
            cross_entropy(p, p)
            for p, _ in pairs_of_views(*args, 1, temperatures[1])
        )
        means.append(t_layer.mean((0, 1)))
        if not places:
            continue
        queries = (s_global if among_global else s_local)[output]
        emb = by_view(project(queries))
        queries, keys = by_view(queries), by_view(t_global[output])
        found, shown = [], []
        for view, query, key in places:
            for b in range(len(views[0])):
                maps = queries[query, b], keys[key, b]
                crop, other = crops[view][b], crops[key][b]
                part = search(crop, maps[0], other, maps[1])
                shown.append(float(part is not None))
                if part is None:  # batch norm sees the whole view
                    crop, other = ((0, 0, 1, 1, c[4]) for c in (crop, other))
                    part = search(crop, maps[0], other, maps[1])
                found.append(part)
        with torch.no_grad():
            targets = by_view(t_project(torch.stack(found)))
        # Eq. 9. Nothing is found where views share nothing: a term of 0.
        terms = [
            cross_entropy(
                softmax(targets[place, b], temperatures[1]),
                softmax(emb[query, b], temperatures[0]),
            )
            for place, (_, query, _) in enumerate(places)
            for b in range(len(views[0]))
        ]
        figures[f'loss_{name}_search'] = settings['search_weight'] * mean(
            term * weight for term, weight in zip(terms, shown, strict=True)
        )
        if search is roi_search:
            figures['search_pairs'] = torch.tensor(mean(shown))
    return figures, means
