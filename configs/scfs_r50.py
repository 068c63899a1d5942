# The paper's default: ImageNet, 8 GPUs with 32 images each, 200 epochs.
_base_ = [
    './_base_/models/scfs_resnet50.py',
    './_base_/datasets/imagenet_bs32_mcrop.py',
    './_base_/schedules/sgd_coslr_200e.py',
    './_base_/default_runtime.py',
]
