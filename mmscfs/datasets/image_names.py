# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Names of images in lists and annotations, which may be of elsewhere."""

import os
import os.path as osp
import unicodedata
from collections.abc import Sequence
from itertools import islice

LOOKED_AT = 10_000  # folders, in search of a file


def check_inside(name: str, source: str, folder: str) -> None:
    """Check that a name that a file gives stays in its folder.

    Links below the folder are the user's own, and may lead anywhere. A folder
    may be a remote one, but no name: OpenMMLab would fetch it. Errors say
    that ``source`` has the name.

    Raises:
        ValueError: The name is empty, absolute or an address, or could leave
            the folder.
    """
    if (
        not name
        or osp.isabs(name)
        or '..' in name.split('/')
        or '\0' in name
        or '://' in name
    ):
        raise ValueError(
            f'{source} has the name {name[:300]!r}, which is not a path below '
            f'the folder {folder!r}{similar(name, folder)}: write it from '
            'that folder on, without ".." or "://"'
        )


def check_there(names: Sequence[str], folder: str, setting: str) -> None:
    """Check that images exist.

    Args:
        names (Sequence[str]): Their names.
        folder (str): The folder that these are below; '' for whole paths.
        setting (str): The setting that leads to them, for errors.

    Raises:
        FileNotFoundError: One does not. Says what is there instead.
    """
    missing = [n for n in names if not osp.isfile(osp.join(folder, n))]
    if missing:
        raise FileNotFoundError(
            f'{setting}: {len(missing)} of {len(names)} images looked for do '
            f'not exist, e.g. {osp.join(folder, missing[0])!r}'
            f'{similar(missing[0], folder)}: correct the folder, or put the '
            'images there'
        )


def check_names(
    names: Sequence[str], source: str, folder: str, setting: str
) -> None:
    """Check that names stay in their folder, and that some of them exist.

    Raises:
        FileNotFoundError, ValueError: See :func:`check_there` and
            :func:`check_inside`.
    """
    for name in names:
        check_inside(name, source, folder)
    check_there(names[:: len(names) // 20 + 1], folder, setting)


def similar(name: str, folder: str) -> str:
    """Name the file that a missing one may be, and what would fit; or ''.

    It has the same name elsewhere below the folder, or one that differs in
    case, in Unicode's form or, at the same place, in the ending.
    """
    wanted = name.replace('\\', '/')
    root = folder or osp.dirname(name)
    here = osp.normpath(osp.dirname(osp.join(folder, wanted)))
    base, found = osp.basename(wanted), []
    stem, form = osp.splitext(base)[0], composed(base)
    for place, _, files in islice(os.walk(root), LOOKED_AT):
        is_here = osp.normpath(place) == here
        for file in files:
            other = composed(file)
            ranks = (
                file == base,
                other == form,
                other.casefold() == form.casefold(),
                is_here and osp.splitext(file)[0] == stem,
            )
            path = osp.join(place, file)
            if True in ranks and osp.isfile(path):  # not a broken link
                found.append((ranks.index(True), path))
    if not found:
        return ''
    path = min(found)[1]
    there = osp.relpath(path, root)
    text = f' ({there!r} is there'
    if '\\' in name:
        text += ', and this is a path of Windows: write the name with "/"'
    elif composed(there) == composed(wanted):
        form = 'NFD' if unicodedata.is_normalized('NFD', there) else 'NFC'
        text += (
            f", which looks the same but has Unicode's form {form}: write the "
            f"names in that form, by Python's unicodedata.normalize({form!r}, "
            'name)'
        )
    elif osp.basename(there) == base:
        text += f': write that name, {there!r}'
        if path.endswith(f'/{wanted}'):
            fits = path.removesuffix(f'/{wanted}')
            text += f', or make {fits!r} the folder'
    return f'{text})'


def composed(text: str) -> str:
    """Return a text in one of Unicode's forms, to compare it."""
    return unicodedata.normalize('NFC', text)
