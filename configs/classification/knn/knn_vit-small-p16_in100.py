# Table 10.
_base_ = [
    '../../_base_/models/vit-small-p16_features.py',
    '../../_base_/datasets/imagenet100_features.py',
    '../../_base_/classification_runtime.py',
]

test_cfg = dict(type='KNNLoop', layers='all')
evaluation = dict(protocol='knn', dataset='in100')
