# VOC2007: train/val images to learn from, test images to be tested on.
_base_ = ['./imagenet_features.py']

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VOC',
        data_root='data/VOCdevkit/VOC2007',
        split='test',
        pipeline=_base_.test_pipeline,
    ),
)
test_cfg = dict(
    bank_dataloader=dict(
        dataset=dict(
            _delete_=True,
            type='VOC',
            data_root='data/VOCdevkit/VOC2007',
            split='trainval',
            pipeline=_base_.test_pipeline,
        ),
    ),
)
