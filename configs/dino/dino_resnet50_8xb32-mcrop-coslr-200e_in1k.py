# The baseline of configs/scfs_r50.py.
_base_ = [
    '../_base_/models/dino_resnet50.py',
    '../_base_/datasets/imagenet_bs32_mcrop.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]
