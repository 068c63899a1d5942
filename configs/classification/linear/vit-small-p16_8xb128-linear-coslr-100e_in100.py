# Table 10.
_base_ = [
    '../../_base_/models/vit-small-p16_linear.py',
    '../../_base_/datasets/imagenet100_bs32_cls.py',
    '../../_base_/schedules/linear_sgd_coslr_100e.py',
    '../../_base_/linear_runtime.py',
]

model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=128)
# 0.001 for each 256 images.
optim_wrapper = dict(optimizer=dict(lr=0.004))
auto_scale_lr = dict(base_batch_size=1024)
evaluation = dict(protocol='linear', dataset='in100')
