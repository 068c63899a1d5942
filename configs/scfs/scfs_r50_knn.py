# configs/scfs_r50.py with k-NN accuracy every ten epochs.
_base_ = ['../scfs_r50.py', '../_base_/datasets/imagenet_knn.py']

train_cfg = dict(val_interval=10)
default_hooks = dict(
    checkpoint=dict(save_best='knn/top1', rule='greater'),
    result=dict(type='ResultFileHook'),
)
evaluation = dict(protocol='knn', dataset='in1k')
