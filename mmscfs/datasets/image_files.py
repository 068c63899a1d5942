# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import logging
import os
import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from .image_names import check_inside
from .samplers import SampleKey
from .transforms.loading import (
    EncodedImage,
    LoadImage,
    UnreadableImageError,
    check_regular,
)

UNREADABLE = 'unreadable_files.txt'  # the list, in a work directory
MAX_IN_A_ROW = 100  # unreadable files, and no image is returned
LOOKED_FOR = 20  # names of a list, of which one must exist
DECODED = 20  # images that are read before a run
SHOWN = 5  # kinds of files that are ignored
RUN_FOLDERS = {'work_dirs', 'vis_data'}  # whose pictures runs write
# Thumbnails, leftovers and deleted files of macOS, NAS and Windows.
SYSTEM_FILES = {'Thumbs.db', 'desktop.ini'}
SYSTEM_FOLDERS = {'__MACOSX', '@eaDir', '#recycle', '$RECYCLE.BIN'}
# Those of mmpretrain, and the others that LoadImage reads.
EXTENSIONS = (
    *('.bmp', '.gif', '.jp2', '.jpeg', '.jpg', '.pgm', '.png', '.pnm'),
    *('.ppm', '.tif', '.tiff', '.webp'),
)


@DATASETS.register_module()
class ImageFiles(CustomDataset):
    """Images without labels, for pre-training.

    Takes every image file under ``data_root/data_prefix``, at any depth: the
    ImageNet layout, COCO's image folder, or a plain folder. If the data set
    has a list of files, ``ann_file`` or ``meta/<data_prefix>.txt`` as
    ImageNet's, that list is taken instead and nothing is scanned; a label
    behind a name is ignored. A scan leaves out the folders ``work_dirs`` and
    those of runs, which have ``vis_data`` in them: their pictures are the
    runs'. It leaves out hidden folders, too, and those of thumbnails and
    deleted files that a system makes. It follows links, but not to a folder
    in which it already is.

    Args:
        data_root (str): Root folder. Defaults to ''.
        data_prefix (str | dict): Folder of the images below the root, e.g.
            "train" or dict(img_path="train"). Defaults to ''.
        ann_file (str): List of files below the root, a name a line.
            Defaults to ''.
        on_error (str): What to do about an image that cannot be read:
            "raise" stops the run; "skip" names it once in the log and takes
            the next image instead. Defaults to "raise".
        max_errors (float): Share of the files that may be unreadable; with
            more of them ``UnreadableFilesHook`` saves and ends the run.
            Defaults to 0.5.
        extensions (Sequence[str]): Endings of the files that a scan takes,
            in lower or upper case; it counts the others in the log. A list
            may name files of any ending. Defaults to ``EXTENSIONS``, the
            usual ones.
        **kwargs: Those of :class:`mmpretrain.datasets.CustomDataset`.

    Raises:
        ValueError: A setting is not valid, no folder is named, or the list
            has a name that leaves it.
        FileNotFoundError: The folder does not exist or holds no image.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | Mapping[str, str] = '',
        ann_file: str = '',
        on_error: str = 'raise',
        max_errors: float = 0.5,
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        if on_error not in ('raise', 'skip'):
            raise ValueError(
                f"ImageFiles: on_error={on_error!r} must be 'raise' or 'skip'"
            )
        if not (isinstance(max_errors, (int, float)) and 0 <= max_errors <= 1):
            raise ValueError(
                f'ImageFiles: max_errors={max_errors!r} must be a share from '
                '0 to 1 of the files, e.g. 0.1'
            )
        if isinstance(data_prefix, Mapping):  # as mmengine has it
            data_prefix = data_prefix.get('img_path', '')
        given = dict(
            data_root=data_root, data_prefix=data_prefix, ann_file=ann_file
        )
        for name, path in given.items():
            if not isinstance(path or '', (str, os.PathLike)) or (
                '://' in str(path)
            ):
                raise ValueError(
                    f'ImageFiles: {name}={path!r} must be the path of one '
                    'local folder or list: mount what is elsewhere, and for '
                    "several use type='ConcatDataset'"
                )
        if not (data_root or data_prefix or ann_file):
            raise ValueError(
                "ImageFiles: data_root='' must name the folder of the images"
            )
        if isinstance(extensions, str) or not all(
            isinstance(ending, str) for ending in extensions
        ):
            raise ValueError(
                f'ImageFiles: extensions={extensions!r} must be a list of '
                "endings, e.g. ['.jpg', '.png']"
            )
        self.on_error = on_error
        self.max_errors = max_errors
        if not ann_file and data_prefix:
            listed = osp.join('meta', f'{data_prefix.rstrip("/")}.txt')
            if osp.isfile(osp.join(data_root, listed)):
                ann_file = listed
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            ann_file=ann_file,
            with_label=False,
            extensions=extensions,
            **kwargs,
        )

    def full_init(self) -> None:
        """Read the list of images, and note that none is unreadable yet."""
        if self._fully_initialized:
            return
        super().full_init()
        # In memory that workers share; 1 for a file that cannot be read.
        marks = torch.zeros(len(self), dtype=torch.uint8)
        self.unreadable = marks.share_memory_()

    @property
    def num_unreadable(self) -> int:
        """Files found to be unreadable, by this process and its workers."""
        return int(self.unreadable.numpy().sum(dtype=np.int64))

    def unreadable_names(self) -> list[str]:
        """Return the paths of these files."""
        places = self.unreadable.numpy().nonzero()[0].tolist()
        return [self.get_data_info(place)['img_path'] for place in places]

    def check_some(self) -> None:
        """Load DECODED images, spread over all, unless bad ones are skipped.

        Raises:
            UnreadableImageError: One cannot be read.
        """
        loads = [
            t for t in self.pipeline.transforms if isinstance(t, LoadImage)
        ]
        if self.on_error == 'skip' or not loads:
            return
        count = min(DECODED, len(self))
        for place in range(count):
            sample = self.get_data_info(place * len(self) // count)
            try:
                image = loads[0](sample)['img']
                if isinstance(image, EncodedImage):
                    image.decode_in_full()
            except UnreadableImageError as error:
                raise self._with_remedy(error) from error

    def load_data_list(self) -> list[dict]:
        """List the images as ``dict(img_path=...)``."""
        folder = self.img_prefix
        remedy = (
            'put the images there, or point train_dataloader.dataset.'
            'data_root (and data_prefix) at them'
        )
        if not osp.isdir(folder):
            raise FileNotFoundError(
                f'ImageFiles: no folder {folder!r} (data_root='
                f'{self.data_root!r}): {remedy}'
            )
        if self.ann_file:
            names, source = self._read_list(), f'the list {self.ann_file}'
        else:
            names, ignored = find_images(folder, self.extensions)
            source = folder
            if not names:
                raise FileNotFoundError(
                    f'ImageFiles: no image in {folder!r} (endings '
                    f'{", ".join(sorted(self.extensions))}{ignored}): {remedy}'
                )
            if ignored:
                print_log(
                    f'ImageFiles: {len(names)} images in {folder!r}{ignored}. '
                    'To read files of another ending, add it to '
                    'train_dataloader.dataset.extensions',
                    logger='current',
                    level=logging.WARNING,
                )
        if not names:
            raise FileNotFoundError(
                f'ImageFiles: {source!r} is empty: {remedy}'
            )
        paths = [osp.join(folder, name) for name in names]
        if not any(map(osp.lexists, paths[:LOOKED_FOR])):
            raise FileNotFoundError(
                f'ImageFiles: {source!r} names {paths[0]!r}, which does not '
                f'exist, nor do those that follow: {remedy}, and write the '
                "path below that folder on each line, with '/', alone or "
                'with a blank and a label behind it'
            )
        return [dict(img_path=path) for path in paths]

    def _read_list(self) -> list[str]:
        """Read ``ann_file``: a name, and perhaps a label, on each line."""
        try:
            check_regular(self.ann_file)
            # Names may be of any bytes, and editors begin with a mark.
            with open(
                self.ann_file, encoding='utf-8-sig', errors='surrogateescape'
            ) as lines:
                entries = [line.strip() for line in lines if line.strip()]
        except (ValueError, OSError) as error:
            raise ValueError(
                f'ImageFiles: ann_file={self.ann_file!r} is not a list of '
                f'images: {error}'
            ) from error
        names = [
            entry.rsplit(maxsplit=1)[0]
            if entry.rsplit(maxsplit=1)[-1].lstrip('-').isdecimal()
            else entry
            for entry in entries
        ]
        for name in names:
            check_inside(
                name,
                f'ImageFiles: the list {self.ann_file!r}',
                self.img_prefix,
            )
        return names

    def __getitem__(self, idx: int) -> dict:
        """Return a sample, or that of the next image that can be read.

        Raises:
            UnreadableImageError: The image cannot be read and ``on_error`` is
                "raise", or it and the next ``MAX_IN_A_ROW`` cannot.
        """
        for _ in range(MAX_IN_A_ROW):
            try:
                return super().__getitem__(idx)
            except UnreadableImageError as error:
                if self.on_error == 'raise':
                    raise self._with_remedy(error) from error
                problem = error
                if not self.unreadable[int(idx)]:
                    self.unreadable[int(idx)] = 1
                    print_log(
                        f'{error}; skipped ({self.num_unreadable} of '
                        f'{len(self)} files so far)',
                        logger='current',
                        level=logging.WARNING,
                    )
            following = (int(idx) + 1) % len(self)
            if isinstance(idx, SampleKey):
                following = SampleKey(following, *idx.key[:2])
            idx = following
        raise UnreadableImageError(
            f'{problem}{self._gone()}; nor could {MAX_IN_A_ROW - 1} files '
            'before it be read. Repair them and continue with --resume'
        ) from problem

    def _with_remedy(self, error: UnreadableImageError) -> Exception:
        """Return an image's error that says what to do."""
        return UnreadableImageError(
            f'{error}{self._gone()}; repair it, or set '
            "train_dataloader.dataset.on_error='skip'. `python tools/"
            'dataset_converters/check_dataset.py '
            f'{self.img_prefix!r} --decode` names all such files'
        )

    def _gone(self) -> str:
        """Say so if the whole folder is no longer there."""
        folder = self.img_prefix
        if osp.isdir(folder):
            return ''
        return (
            f': the whole folder {folder!r} is gone, mount it again or put '
            'it back, and continue with --resume'
        )


def find_images(
    folder: str, extensions: Sequence[str] = EXTENSIONS
) -> tuple[list[str], str]:
    """List the images below a folder, and say what else is there.

    Args:
        folder (str): It is scanned as :class:`ImageFiles` says.
        extensions (Sequence[str]): Endings of images, in lower case. Defaults
            to ``EXTENSIONS``.

    Returns:
        tuple[list[str], str]: The sorted paths below it, and of other files
        such a text: "; ignored 2 files (1 .txt, 1 .heic)".

    Raises:
        OSError: A folder cannot be read.
    """
    names: list[str] = []
    others: Counter[str] = Counter()
    # Folders below the root, those that they are in, why they are not taken.
    waiting: list[tuple[str, frozenset, str]] = [('', frozenset(), '')]
    while waiting:
        below, above, reason = waiting.pop()
        here = osp.join(folder, below)
        state = os.stat(here)
        key = state.st_dev, state.st_ino
        if key in above:  # a link leads back
            continue
        entries = [*os.scandir(here)]
        kinds = {entry.name for entry in entries if entry.is_dir()}
        if below and 'vis_data' in kinds:
            reason = 'in a folder of runs'
        for entry in entries:
            name = osp.join(below, entry.name)
            if entry.name in kinds:
                why = reason or why_ignored(entry.name)
                waiting.append((name, above | {key}, why))
            elif entry.name.startswith('.') or entry.name in SYSTEM_FILES:
                continue
            elif not entry.is_file():
                others['no files or broken links'] += 1
            elif reason:
                others[reason] += 1
            elif name.lower().endswith(tuple(extensions)):
                names.append(name)
            else:
                ending = osp.splitext(name)[1].lower()
                others[ending or 'without an ending'] += 1
    if not others:
        return sorted(names), ''
    total, most = others.total(), others.most_common(SHOWN)
    kinds_of = ', '.join(f'{count} {ending}' for ending, count in most)
    more = ', ...' * (len(others) > SHOWN)
    plural = 's' * (total > 1)
    ignored = f'; ignored {total} file{plural} ({kinds_of}{more})'
    return sorted(names), ignored


def why_ignored(folder: str) -> str:
    """Say why a scan does not take a folder of this name; '' if it does."""
    if folder in RUN_FOLDERS:
        return 'in a folder of runs'
    hidden = folder.startswith('.') or folder in SYSTEM_FOLDERS
    return 'in a hidden folder' if hidden else ''
