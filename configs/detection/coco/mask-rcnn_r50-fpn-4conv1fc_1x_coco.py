_base_ = [
    '../../_base_/models/mask-rcnn_r50-fpn-4conv1fc.py',
    '../../_base_/datasets/coco_instance_ms.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../../_base_/detection_runtime.py',
]

train_cfg = dict(type='mmpretrain.ResumableEpochLoop')
