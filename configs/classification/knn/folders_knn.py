# k-NN on any folders of classes: my/labeled/train/<class>/... votes on
# my/labeled/val/<class>/... Other folders by one setting,
# test_dataloader.dataset.data_root.
_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/folders_val.py',
    '../../_base_/classification_runtime.py',
]

data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
test_dataloader = _base_.val_dataloader
test_evaluator = []
test_cfg = _base_.val_cfg
val_dataloader = None
val_evaluator = None
val_cfg = None
evaluation = dict(protocol='knn', dataset='folders')
