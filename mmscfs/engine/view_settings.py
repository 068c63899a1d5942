# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How a training's views are made, written into its config."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from mmscfs.checkpoint import parse_config
from mmscfs.settings.variables import nodes

from .resume.chooser import warn

LOADER, CROPS = 'LoadImage', 'multi_crop'

# Settings whose default has changed, or depends on the machine: the step of
# the pipeline, the name, and what runs had whose config does not name it. In
# this order, as the last one depends on the first.
SETTINGS: tuple[tuple[str, str, Any], ...] = (
    (CROPS, 'filters', 'opencv'),
    (CROPS, 'color_on_device', False),
    (LOADER, 'reduced', False),
)


def settle_views(cfg: Config, saved: str = '') -> None:
    """Write into a config how views are made, where it does not say so.

    A new run gets the defaults of today and of this machine: antialiased
    crops; with these, JPEG files decoded at a reduced scale where that is
    within their tolerance; colors on the device if it is a GPU and the config
    hands them on. A run that resumes, on whatever version or machine,
    continues as it began. What its config sets otherwise now is taken, with a
    warning.

    Args:
        cfg (Config): Changed in place.
        saved (str): The config that a resumed run began with, as text.
            Defaults to '': the run is new.

    Example:
        >>> cfg = Config.fromfile('configs/scfs_r50.py')
        >>> settle_views(cfg)
        >>> cfg.multi_crop.filters
        'antialiased'
    """
    try:
        before = [*view_steps(parse_config(saved))] if saved else []
    except ValueError:
        before = []
    pipelines = [*view_steps(cfg)]
    for number, steps in enumerate(pipelines):
        old = before[number] if number < len(before) else None
        for step, name, first in SETTINGS:
            part = steps[step]
            if part is None:
                continue
            was = todays(name, steps, cfg)
            if old is not None:
                was = (old[step] or {}).get(name, first)
                now = part.get(name, was)
                if now != was:
                    warn(
                        f'{step}.{name}={now!r} (saved: {was!r}): from here '
                        'on the views are made in another way. To continue '
                        'as the run began, remove the setting'
                    )
            part.setdefault(name, was)
    if len(pipelines) == 1 and cfg.get(CROPS):
        for step, name, _ in SETTINGS:
            if step == CROPS:
                cfg[CROPS].setdefault(name, pipelines[0][CROPS][name])


def todays(name: str, steps: Mapping, cfg: Config) -> Any:
    """Return the default of a setting for a new run."""
    if name == 'filters':
        return 'antialiased'
    if name == 'reduced':
        others = {*steps[LOADER]} - {'type', 'backend_args'}
        return not others and steps[CROPS].filters == 'antialiased'
    preprocessor = str((cfg.get('data_preprocessor') or {}).get('type'))
    return (
        get_device() == 'cuda'
        and preprocessor.endswith('MultiCropDataPreprocessor')
        and 'colors' in (steps['PackInputs'] or {}).get('meta_keys', ())
    )


def crops_of(cfg: Mapping | Config) -> list[Any]:
    """Return the config of every MultiCrop of the training images."""
    return [steps[CROPS] for steps in view_steps(cfg)]


def view_steps(cfg: Mapping | Config) -> Iterator[dict[str, Any]]:
    """Yield for each MultiCrop of the training images: it, what is around it.

    Its config is under CROPS, that of the ``LoadImage`` right before it under
    LOADER, and of the ``PackInputs`` behind it; None where there is none.
    """
    for _, part in nodes((cfg.get('train_dataloader') or {}).get('dataset')):
        if not isinstance(part, (list, tuple)):
            continue
        kinds = [
            str(step.get('type')).split('.')[-1]
            if isinstance(step, Mapping)
            else ''
            for step in part
        ]
        if 'MultiCrop' in kinds:
            at = kinds.index('MultiCrop')
            found: dict[str, Any] = dict.fromkeys((LOADER, 'PackInputs'))
            found[CROPS] = part[at]
            for i in (at - 1, at + 1):
                if 0 <= i < len(part) and kinds[i] in found:
                    found[kinds[i]] = part[i]
            yield found
