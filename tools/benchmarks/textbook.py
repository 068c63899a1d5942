# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""SCFS in its textbook form: what mmscfs' step is measured and tested against.

Written from the equations, one after the other: a loop over pairs of views,
a loop over views in the search, a normalized copy of the prototypes, one
all-reduce for each layer's center, loops over parameters in clipping, SGD and
teacher, and PyTorch's default memory format. Only the backbones are shared.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn


def wide(x: Tensor) -> Tensor:
    """Widen half precision to float32."""
    return x.float() if x.element_size() < 4 else x


def conv_bn(in_channels: int, out_channels: int, size: int) -> list:
    """A convolution that keeps height and width, and its batch norm."""
    conv = nn.Conv2d(
        in_channels, out_channels, size, padding=size // 2, bias=False
    )
    return [conv, nn.BatchNorm2d(out_channels)]


class PlainSearchProjector(nn.Module):
    """Three convolutions with a shortcut, then two FC layers (section 3.4)."""

    def __init__(self, channels: int, mid: int, hidden: int, out: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *conv_bn(channels, mid, 1),
            nn.ReLU(),
            *conv_bn(mid, mid, 3),
            nn.ReLU(),
            *conv_bn(mid, channels, 1),
        )
        self.fcs = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out, bias=False),
            nn.BatchNorm1d(out),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Project maps (B, C, H, W) to unit vectors (B, D)."""
        maps = F.relu(self.convs(maps) + maps)
        return F.normalize(wide(self.fcs(maps.mean((2, 3)))), dim=-1)


class PlainProjector(nn.Module):
    """DINO's projector with weight-normalized prototypes."""

    def __init__(self, widths: list[int], num_prototypes: int) -> None:
        super().__init__()
        layers = []
        for width, following in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width, following), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.prototypes = nn.Linear(widths[-1], num_prototypes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Project features (B, C) to cosines (B, K)."""
        embeddings = F.normalize(self.mlp(features), dim=-1)
        return F.linear(embeddings, F.normalize(self.prototypes.weight))


def cross_entropy(target: Tensor, logits: Tensor, temperature: float):
    """-P' log P of one pair of views, a mean over the batch (Eq. 2)."""
    log_p = F.log_softmax(wide(logits) / temperature, dim=-1)
    return -(target * log_p).sum(-1).mean()


def probabilities(logits: Tensor, temperature: float, center=0.0) -> Tensor:
    """The teacher's P' (Eq. 1)."""
    return F.softmax((wide(logits) - center) / temperature, dim=-1)


def search(local_map: Tensor, global_map: Tensor) -> Tensor:
    """What one local view of each image finds in a global one (Eqs. 5-7)."""
    query = local_map.mean((2, 3))[:, :, None, None]
    attention = F.cosine_similarity(query, global_map, dim=1)
    return attention[:, None] * global_map


class TextbookSCFS(nn.Module):
    """A model of mmscfs, its weights and its training step, written plainly.

    Args:
        model (nn.Module): An ``SCFS`` without norms in its DINO projector.
        lr, momentum, weight_decay, max_norm (float): Of SGD and clipping.
        teacher_momentum (float): Share of itself that the teacher keeps.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        max_norm: float = 3.0,
        teacher_momentum: float = 0.996,
    ) -> None:
        super().__init__()
        self.student = self.networks(model)
        self.teacher = self.networks(model.teacher).requires_grad_(False)
        head = model.head
        self.temperatures = head.student_temp, head.teacher_temp
        self.centers = [head.center.value.clone()]
        self.centers += [c.value.clone() for c in head.search_centers]
        self.center_momentum = head.center.momentum
        self.num_searched = 1 if model.search_views == 'first' else 2
        self.max_norm = max_norm
        self.teacher_momentum = teacher_momentum
        flat = [p for p in self.student.parameters() if p.ndim == 1]
        others = [p for p in self.student.parameters() if p.ndim > 1]
        self.optimizer = torch.optim.SGD(
            [dict(params=others), dict(params=flat, weight_decay=0.0)],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            foreach=False,
        )

    @staticmethod
    def networks(model: nn.Module) -> nn.ModuleDict:
        """Return plain copies of a model's networks, of the same weights."""
        linears = [m for m in model.neck.mlp if isinstance(m, nn.Linear)]
        widths = [linears[0].in_features, *(m.out_features for m in linears)]
        projector = PlainProjector(widths, model.neck.num_prototypes)
        search_projectors = nn.ModuleList(
            PlainSearchProjector(
                p.in_channels,
                p.bottleneck[0].out_channels,
                p.mlp[0].out_features,
                p.mlp[3].out_features,
            )
            for p in model.search_neck.projectors
        )
        for plain, ours in (
            (projector, model.neck),
            (search_projectors, model.search_neck),
        ):
            plain.to(next(ours.parameters()))
            values = ours.state_dict().values()
            names = plain.state_dict()
            plain.load_state_dict(dict(zip(names, values, strict=True)))
        networks = nn.ModuleDict(
            dict(
                backbone=copy.deepcopy(model.backbone),
                projector=projector,
                search_projectors=search_projectors,
            )
        )
        return networks.to(memory_format=torch.contiguous_format)

    def loss(self, views: list[Tensor]) -> Tensor:
        """The total of Eq. 11 for two global and N local views (B, 3, S, S).

        Remembers the teacher's outputs, for the centers.
        """
        student, teacher = self.student, self.teacher
        tau, tau_teacher = self.temperatures
        batch, num_local = len(views[0]), len(views) - 2
        s_global = student.backbone(torch.cat(views[:2]))
        s_local = student.backbone(torch.cat(views[2:]))
        with torch.no_grad():
            t_global = teacher.backbone(torch.cat(views[:2]))
            t_logits = teacher.projector(t_global[-1].mean((2, 3)))
        self.outputs = [t_logits]
        targets = [
            probabilities(logits, tau_teacher, self.centers[0])
            for logits in t_logits.split(batch)
        ]
        pooled = [s_global[-1].mean((2, 3)), s_local[-1].mean((2, 3))]
        s_logits = student.projector(torch.cat(pooled)).split(batch)
        terms = [
            cross_entropy(target, logits, tau)
            for t, target in enumerate(targets)
            for v, logits in enumerate(s_logits)
            if t != v
        ]
        total = sum(terms) / len(terms)
        for layer, projector in enumerate(student.search_projectors):
            t_projector = teacher.search_projectors[layer]
            g_logits = projector(s_global[layer]).split(batch)
            l_logits = projector(s_local[layer]).split(batch)
            with torch.no_grad():
                t_logits = t_projector(t_global[layer])
                self.outputs.append(t_logits)
                g_targets = [
                    probabilities(logits, tau_teacher, self.centers[layer + 1])
                    for logits in t_logits.split(batch)
                ]
                found = []
                for keys in t_global[layer].split(batch)[: self.num_searched]:
                    for local_map in s_local[layer].split(batch):
                        found.append(search(local_map, keys))
                found = t_projector(torch.cat(found)).split(batch)
                l_targets = [probabilities(x, tau_teacher) for x in found]
            for t, target in enumerate(g_targets):
                term = cross_entropy(target, g_logits[1 - t], tau)
                total = total + 0.25 * term
            terms = [
                cross_entropy(target, l_logits[i % num_local], tau)
                for i, target in enumerate(l_targets)
            ]
            total = total + 0.5 * sum(terms) / len(terms)
        return total

    @torch.no_grad()
    def update(self) -> None:
        """Clip and step after the backward pass, then teacher and centers."""
        for parameter in self.student.parameters():
            norm = parameter.grad.norm()
            if norm > self.max_norm:
                parameter.grad.mul_(self.max_norm / (norm + 1e-6))
        self.optimizer.step()
        keep = self.teacher_momentum
        for own, theirs in zip(
            self.teacher.parameters(), self.student.parameters(), strict=True
        ):
            own.mul_(keep).add_((1 - keep) * theirs)
        keep = self.center_momentum
        for center, outputs in zip(self.centers, self.outputs, strict=True):
            mean = wide(outputs).mean(0)
            if distributed.is_initialized():
                distributed.all_reduce(mean)
                mean /= distributed.get_world_size()
            center.mul_(keep).add_(mean, alpha=1 - keep)
        self.optimizer.zero_grad()
