# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os.path as osp


def check_inside(name: str, source: str, folder: str) -> None:
    """Check that a name that a file gives stays in its folder.

    Links below the folder are the user's own, and may lead anywhere. A folder
    may be a remote one, but no name: OpenMMLab would fetch it.

    Args:
        name (str): Path below the folder, as the file has it.
        source (str): What has the name, for the error.
        folder (str): The folder, for the error.

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
            f'{source} has the name {name!r}, which is no path below the '
            f'folder {folder!r}: write it from that folder on, without ".." '
            'or "://"'
        )
