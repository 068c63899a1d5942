# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import numpy as np

from mmscfs.visualization import Detections, draw_detections
from mmscfs.visualization.detections import annotated


def test_masks_and_boxes_are_drawn_where_they_are():
    image = np.full((100, 100, 3), 255, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[20:40, 20:40] = True
    found = Detections(
        np.array([[10, 50, 90, 90]]), np.array([1]), None, mask[None]
    )
    picture = draw_detections([(image, dict(one=found))], ['a', 'b'])
    # 300 px for 100 px, from (16, 90) on; the color of class 1 is #D55E00.
    inside = picture[90 + 65 : 90 + 115, 16 + 65 : 16 + 115].reshape(-1, 3)
    assert (np.abs(inside.astype(int) - (234, 174, 127)).max(1) <= 1).all()
    frame = np.abs(picture.astype(int) - (213, 94, 0)).max(-1) < 40
    y, x = np.nonzero(frame[90 + 160 :])
    assert abs(x.min() - (16 + 30)) <= 2
    assert abs(x.max() - (16 + 270)) <= 2
    assert abs(y.max() + 160 - 270) <= 2


def test_boxes_of_a_very_narrow_image_lie_in_it():
    """2 x 6000 px become 1 x 300; the box is its middle third."""
    image = np.zeros((6000, 2, 3), np.uint8)
    found = Detections(np.array([[0, 2000, 2, 4000]]), np.array([0]))
    picture = draw_detections([(image, dict(found=found))], [''])
    # 300 px from (16, 90) on; the color of class 0 is #0072B2.
    blue = np.abs(picture.astype(int) - (0, 114, 178)).max(-1) < 40
    y = np.nonzero(blue[90:])[0]
    assert abs(y.min() - 100) <= 2
    assert abs(y.max() - 200) <= 2


def test_annotations_become_masks():
    square = [2, 1, 6, 1, 6, 5, 2, 5]
    info = dict(
        height=8,
        width=10,
        instances=[
            dict(
                bbox=[2, 1, 6, 5], bbox_label=3, mask=[square], ignore_flag=0
            ),
            dict(bbox=[0, 0, 9, 9], bbox_label=1, mask=[], ignore_flag=1),
        ],
    )
    found = annotated(info)
    assert found.boxes.tolist() == [[2, 1, 6, 5]]
    assert found.labels.tolist() == [3]
    expected = np.zeros((1, 8, 10), bool)
    expected[0, 1:5, 2:6] = True
    assert np.array_equal(found.masks, expected)
    # Run lengths, by columns: 3 off, 2 on, the rest off.
    info['instances'][0]['mask'] = dict(counts=[3, 2, 75], size=[8, 10])
    assert np.argwhere(annotated(info).masks[0]).tolist() == [[3, 0], [4, 0]]
    del info['instances'][0]['mask']
    assert annotated(info).masks is None
    nothing = annotated(dict(height=8, width=10, instances=[]))
    assert nothing.boxes.shape == (0, 4)
