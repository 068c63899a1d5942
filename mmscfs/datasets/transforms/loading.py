# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import cv2
from mmcv.transforms import LoadImageFromFile
from mmpretrain.registry import TRANSFORMS


class UnreadableImageError(ValueError):
    """An image file that is missing or cannot be decoded."""


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with an error that names the file.

    Raises:
        UnreadableImageError: The file is missing, empty, or no image that
            OpenCV decodes. :class:`ImageFiles` can skip such files.
    """

    def transform(self, results: dict) -> dict:
        """Add ``img`` (BGR uint8, (H, W, 3)) read from ``img_path``."""
        try:
            return super().transform(results)
        except (OSError, ValueError, AssertionError, cv2.error) as error:
            # imdecode answers None for bytes that are no image, which mmcv
            # meets with an assertion or, on an empty file, OpenCV's error.
            raise UnreadableImageError(
                f'cannot read image {results["img_path"]}: '
                f'{str(error).strip() or type(error).__name__}'
            ) from error
