_base_ = ['./imagenet_bs32_cls.py']

train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='InfiniteSampler'),  # the run counts iterations
    dataset=dict(
        type='StanfordCars', data_root='data/Stanford_Cars', split='train'
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='StanfordCars', data_root='data/Stanford_Cars', split='test'
    ),
)
test_dataloader = val_dataloader
