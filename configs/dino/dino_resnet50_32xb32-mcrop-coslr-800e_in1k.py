# 4 nodes of 8 GPUs: batch 1024, the paper's longest run.
_base_ = [
    '../_base_/models/dino_resnet50.py',
    '../_base_/datasets/imagenet_bs32_mcrop.py',
    '../_base_/schedules/sgd_coslr_800e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.4))
auto_scale_lr = dict(base_batch_size=1024)
