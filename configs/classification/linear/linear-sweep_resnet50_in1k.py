# A first answer in minutes: linear classifiers at ten learning rates on
# features of center crops, made once.
_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/imagenet_features.py',
    '../../_base_/classification_runtime.py',
]

test_cfg = dict(type='LinearSweepLoop')
evaluation = dict(protocol='linear-sweep', dataset='in1k')
