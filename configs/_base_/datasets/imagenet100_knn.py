# A folder of 100 classes each in train and val, whichever they are.
_base_ = ['./imagenet_knn.py']

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenet100',
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    ),
)
val_cfg = dict(
    bank_dataloader=dict(
        dataset=dict(
            _delete_=True,
            type='CustomDataset',
            data_root='data/imagenet100',
            data_prefix='train',
            pipeline=_base_.test_pipeline,
        ),
    ),
)
