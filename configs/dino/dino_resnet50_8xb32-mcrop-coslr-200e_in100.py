# ImageNet-100, the paper's ablations (Tables 7-10).
_base_ = [
    '../_base_/models/dino_r50.py',
    '../_base_/datasets/imagenet100_bs32_mcrop.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]
