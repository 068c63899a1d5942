# Images of 32 px, cropped and resized like those of any other data set.
_base_ = ['./imagenet_bs32_cls.py']

# CIFAR's arrays are RGB, where the preprocessor takes files' BGR.
rgb_to_bgr = [
    dict(type='NumpyToPIL', to_rgb=False),
    dict(type='PILToNumpy', to_bgr=True),
]
train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='InfiniteSampler'),  # the run counts iterations
    dataset=dict(
        type='CIFAR10',
        data_root='data/cifar10',
        split='train',
        download=False,
        pipeline=[*rgb_to_bgr, *_base_.train_pipeline[1:]],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='CIFAR10',
        data_root='data/cifar10',
        split='test',
        download=False,
        pipeline=[*rgb_to_bgr, *_base_.test_pipeline[1:]],
    ),
)
test_dataloader = val_dataloader
