# The demo's network.
_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/digit-scenes_features.py',
    '../../_base_/classification_runtime.py',
]

model = dict(backbone=dict(depth=18, stem_channels=16, base_channels=16))
test_cfg = dict(type='KNNLoop', layers='all')
evaluation = dict(protocol='knn', dataset='digits')
