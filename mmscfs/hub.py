# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Configs and weights by names, and mmpretrain's list of the recipes.

``_base_`` in a config and the tools take names such as
``mmscfs::scfs_r50.py``. Whatever takes a checkpoint takes the weights that the
package holds, by names such as ``mmscfs::scfs_resnet18-w16_digit-cards``.
mmpretrain's ``list_models``, ``get_model`` and ``FeatureExtractor`` have the
recipes.
"""

from functools import cached_property
from pathlib import Path

from mmengine import fileio
from mmengine.config import Config
from modelindex.models.Model import Model

PREFIX = 'mmscfs::'
# Where setup.py puts configs and tools; a checkout has them at its root.
MIM = Path(__file__).parent / '.mim'
ROOT = MIM if (MIM / 'configs').is_dir() else Path(__file__).parents[1]
# Each beside a card that says how it was trained and what it is good for.
WEIGHTS = Path(__file__).parent / 'weights'
# Those that mmpretrain can build; detectors are mmdet's.
FAMILIES = ('scfs', 'dino', 'co2')
RESIZE = 256 / 224  # of an image's short edge to the crop, in evaluations


def find_config(name: str) -> str:
    """Return the file of a config that is named ``mmscfs::...``.

    Args:
        name (str): The prefix and a file below ``configs``, e.g.
            ``mmscfs::scfs/scfs_r50_release.py``; ".py" may be left out.

    Raises:
        FileNotFoundError: There is no such config.

    Example:
        >>> cfg = Config.fromfile(find_config('mmscfs::scfs_r50.py'))
    """
    configs = ROOT / 'configs'
    path = configs / f'{name.removeprefix(PREFIX).removesuffix(".py")}.py'
    # A name, and no path: not one that leads elsewhere.
    if '..' in path.parts or configs not in path.parents or not path.is_file():
        raise FileNotFoundError(
            f'no config {name!r}: the names are those below {configs}, e.g. '
            f'{PREFIX}scfs_r50.py'
        )
    return str(path)


def find_weights(name: str) -> str:
    """Return the file of weights that are named ``mmscfs::...``.

    Args:
        name (str): The prefix and a file below ``mmscfs/weights``, e.g.
            ``mmscfs::scfs_resnet18-w16_digit-cards``; ".safetensors" may be
            left out.

    Raises:
        FileNotFoundError: The name is unknown. The message has the others.

    Example:
        >>> find_weights('mmscfs::scfs_resnet18-w16_digit-cards')
        '.../mmscfs/weights/scfs_resnet18-w16_digit-cards.safetensors'
    """
    names = sorted(path.stem for path in WEIGHTS.glob('*.safetensors'))
    stem = name.removeprefix(PREFIX).removesuffix('.safetensors')
    if stem not in names:
        raise FileNotFoundError(
            f'no weights {name!r}: those of mmscfs are '
            f'{", ".join(f"{PREFIX}{known}" for known in names)}'
        )
    return str(WEIGHTS / f'{stem}.safetensors')


class Recipe(Model):
    """A pre-training recipe in mmpretrain's list of models."""

    @cached_property
    def config(self) -> Config:
        """Its config, and the images that ``FeatureExtractor`` makes."""
        return with_test_pipeline(Config.fromfile(self.data['Config']))


def with_test_pipeline(cfg: Config) -> Config:
    """Add the evaluations' images to a pre-training config.

    They are resized, and the center is cropped to the size of the global
    views. mmpretrain's ``FeatureExtractor`` needs them.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: Its training has no ``MultiCrop``.

    Example:
        >>> cfg = with_test_pipeline(Config.fromfile('my_run.py'))
        >>> extract = FeatureExtractor(cfg, pretrained='epoch_200.pth')
    """
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == 'MultiCrop':
            size = transform.global_size
            break
    else:
        raise ValueError(
            'train_dataloader.dataset.pipeline has no MultiCrop, whose '
            'global_size is that of the images: set test_dataloader yourself'
        )
    images = find_config(f'{PREFIX}_base_/datasets/imagenet_val.py')
    # mmpretrain reads the files.
    _, resize, crop, pack = Config.fromfile(images).test_pipeline
    resize.scale, crop.crop_size = round(size * RESIZE), size
    pipeline = [resize, crop, pack]
    # get_model asks the type for names of classes: this one has none.
    dataset = dict(type='CustomDataset', pipeline=pipeline)
    cfg.test_dataloader = dict(dataset=dataset)
    return cfg


def recipes() -> dict[str, Recipe]:
    """Return the recipes that mmpretrain can build, by name.

    None where the modules were copied without their metafiles.
    """
    found = {}
    for family in FAMILIES:
        path = ROOT / 'configs' / family / 'metafile.yml'
        for model in fileio.load(path)['Models'] if path.is_file() else []:
            config = str(ROOT / model['Config'])
            found[model['Name']] = Recipe.from_dict(
                {**model, 'Config': config}, str(path)
            )
    return found
