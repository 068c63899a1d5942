# 8,080 steps on cards with one digit each, in an hour of a CPU core: what an
# image has beside the digit, a small network would learn first.
_base_ = ['./scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py']

# Made by tools/dataset_converters/make_digit_cards.py. Views are as large as
# the digits of the scenes that a detector sees, and hide differences of light.
multi_crop = dict(
    type='MultiCrop',
    global_size=48,
    local_size=24,
    num_local=2,
    global_scale=(0.45, 1.0),
    local_scale=(0.15, 0.4),
    flip_prob=0.0,  # a mirrored digit is another shape
    brightness=0.4,
    contrast=0.6,
    saturation=0.0,
    hue=0.0,
    grey_prob=0.0,
    blur_prob=(0.5, 0.1, 0.2),
    blur_sigma=(0.1, 0.8),
    solarize_prob=(0.0, 0.0, 0.0),
    filters='opencv',  # with which the package's weights were made
)
train_dataloader = dict(
    dataset=dict(
        data_root='data/digit-cards',
        pipeline=[
            dict(type='LoadImage'),
            multi_crop,
            dict(
                type='PackInputs',
                meta_keys=('img_path', 'crops', 'colors'),
            ),
        ],
    ),
)
model = dict(head=dict(center_momentum=0.9))
optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=1,
        end=40,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=40)

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=4, max_keep_ckpts=-1),
    teacher_temp=dict(start=0.04, end=0.04),
    frozen_prototypes=dict(epochs=40),
)
