# Uncurated pre-training on COCO's images, batch 512 (section 4.3).
_base_ = [
    '../_base_/models/dino_resnet50.py',
    '../_base_/datasets/coco_bs32_mcrop.py',
    '../_base_/schedules/sgd_coslr_500e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.2))
auto_scale_lr = dict(base_batch_size=512)
