# ViT-S/16 with DINO's AdamW recipe (Table 10).
_base_ = [
    '../_base_/datasets/imagenet100_bs32_mcrop.py',
    '../_base_/datasets/imagenet100_knn.py',
    '../_base_/schedules/adamw_coslr_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='DINO',
    backbone=dict(
        type='VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
    ),
    neck=dict(type='DINONeck', num_prototypes=65536),
    head=dict(type='DINOHead'),
)

# k-NN accuracy on the way; the best checkpoint by it is kept.
train_cfg = dict(val_interval=10)
default_hooks = dict(
    checkpoint=dict(save_best='knn/top1', rule='greater'),
    result=dict(type='ResultFileHook'),
)
evaluation = dict(protocol='knn', dataset='in100')
