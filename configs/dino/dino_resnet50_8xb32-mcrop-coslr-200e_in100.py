# ImageNet-100, the paper's ablations (Tables 7-10).
_base_ = [
    '../_base_/models/dino_resnet50.py',
    '../_base_/datasets/imagenet100_bs32_mcrop.py',
    '../_base_/datasets/imagenet100_knn.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

# k-NN accuracy on the way; the best checkpoint by it is kept.
train_cfg = dict(val_interval=10)
default_hooks = dict(
    checkpoint=dict(save_best='knn/top1', rule='greater'),
    result=dict(type='ResultFileHook'),
)
evaluation = dict(protocol='knn', dataset='in100')
