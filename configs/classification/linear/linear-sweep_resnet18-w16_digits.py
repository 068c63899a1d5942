_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/digit-scenes_features.py',
    '../../_base_/classification_runtime.py',
]

model = dict(backbone=dict(depth=18, stem_channels=16, base_channels=16))
test_cfg = dict(type='LinearSweepLoop', batch_size=64, epochs=30)
evaluation = dict(protocol='linear-sweep', dataset='digits')
