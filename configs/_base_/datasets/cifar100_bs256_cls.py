_base_ = ['./cifar10_bs256_cls.py']

train_dataloader = dict(
    dataset=dict(type='CIFAR100', data_root='data/cifar100'),
)
val_dataloader = dict(
    dataset=dict(type='CIFAR100', data_root='data/cifar100'),
)
test_dataloader = val_dataloader
