# configs/scfs_r50.py with the box probe on COCO every ten epochs.
_base_ = ['../scfs_r50.py', '../_base_/datasets/coco_boxes.py']

train_cfg = dict(val_interval=10)
default_hooks = dict(
    checkpoint=dict(save_best='boxes/top1', rule='greater'),
    result=dict(type='ResultFileHook'),
)
evaluation = dict(protocol='boxes', dataset='coco')
