# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What OpenMMLab's hubs find of this package, by names.

mmengine: ``mmscfs::scfs_r50.py`` in ``_base_`` and ``mmengine.hub``, which
knows the packages of OpenMMLab alone, and of those only configs in folders.
mmpretrain: its ``list_models``, ``get_model`` and ``FeatureExtractor``.
"""

from functools import cached_property
from pathlib import Path

from mmengine import fileio, hub
from mmengine.config import Config
from mmpretrain.apis import ModelHub
from modelindex.models.Model import Model

PREFIX = 'mmscfs::'
# Where setup.py puts configs and tools; a checkout has them at its root.
MIM = Path(__file__).parent / '.mim'
ROOT = MIM if (MIM / 'configs').is_dir() else Path(__file__).parents[1]
# Those that mmpretrain can build; detectors are mmdet's.
FAMILIES = ('scfs', 'dino', 'co2')
RESIZE = 256 / 224  # of an image's short edge to the crop, in evaluations

_mmengine_path = Config._get_cfg_path
_mmengine_package = hub.hub._get_package_and_cfg_path


def find_config(name: str) -> str:
    """Return the file of a config that is named ``mmscfs::...``.

    Args:
        name (str): The prefix and a file below ``configs``, e.g.
            ``mmscfs::scfs/scfs_r50_release.py``; ".py" may be left out.

    Raises:
        FileNotFoundError: There is no such config.
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


class Recipe(Model):
    """A pre-training recipe in mmpretrain's list of models."""

    @cached_property
    def config(self) -> Config:
        """Its config, and the images that ``FeatureExtractor`` makes."""
        return with_test_pipeline(Config.fromfile(self.data['Config']))


def with_test_pipeline(cfg: Config) -> Config:
    """Add the evaluations' images to a pre-training config.

    Of the size of the global views: resized and cropped at the centre.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: Its training has no ``MultiCrop``.
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


def register() -> None:
    """Make mmengine and mmpretrain know the names; again changes nothing."""
    Config._get_cfg_path = staticmethod(_find_base)
    hub.hub._get_package_and_cfg_path = _find_package
    for family in FAMILIES:
        path = ROOT / 'configs' / family / 'metafile.yml'
        # The modules may have been copied without it.
        models = fileio.load(path)['Models'] if path.is_file() else []
        for model in models:
            config = str(ROOT / model['Config'])
            ModelHub._models_dict[model['Name']] = Recipe.from_dict(
                {**model, 'Config': config}, str(path)
            )


def _find_base(name: str, filename: str) -> tuple[str, str | None]:
    """Find what ``_base_`` names, as mmengine's own function.

    Ours has no scope: like a file of the user's own, it says its
    ``default_scope``, and mmengine knows no registry of the name mmscfs.
    """
    if name.startswith(PREFIX):
        return find_config(name), None
    return _mmengine_path(name, filename)


def _find_package(name: str) -> tuple[str, str]:
    """Find what ``mmengine.hub`` names, as mmengine's own function.

    mmengine looks for the folder of a distribution, which an editable
    install does not have, and then for that of a module: this one's.
    """
    if name.startswith(PREFIX):
        path = Path(find_config(name)).relative_to(ROOT / 'configs')
        return __name__, path.as_posix()
    return _mmengine_package(name)
