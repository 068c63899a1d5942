# Without multi-crop: two global views alone ("DINO w/o MC", Table 7).
_base_ = ['./dino_resnet50_8xb32-mcrop-coslr-200e_in100.py']

multi_crop = dict(_base_.multi_crop, num_local=0)
train_dataloader = dict(
    dataset=dict(
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
