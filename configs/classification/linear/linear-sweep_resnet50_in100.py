_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/imagenet100_features.py',
    '../../_base_/classification_runtime.py',
]

test_cfg = dict(type='LinearSweepLoop')
evaluation = dict(protocol='linear-sweep', dataset='in100')
