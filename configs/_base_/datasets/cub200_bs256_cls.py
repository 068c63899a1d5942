_base_ = ['./imagenet_bs32_cls.py']

train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='InfiniteSampler'),  # the run counts iterations
    dataset=dict(type='CUB', data_root='data/CUB_200_2011', split='train'),
)
val_dataloader = dict(
    dataset=dict(type='CUB', data_root='data/CUB_200_2011', split='test'),
)
test_dataloader = val_dataloader
