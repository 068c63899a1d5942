# For k-NN on any folders of classes: below the data_root of val_dataloader, a
# folder for each class in train (the bank) and in val.
_base_ = ['./imagenet_knn.py']

classes = dict(
    _delete_=True,
    type='CustomDataset',
    pipeline=_base_.val_dataloader.dataset.pipeline,
)
val_dataloader = dict(
    dataset=dict(classes, data_root='my/labeled', data_prefix='val')
)
val_cfg = dict(
    # Without a data_root: the same.
    bank_dataloader=dict(dataset=dict(classes, data_prefix='train')),
    ks=(5, 10, 20),
)
del classes
