# k-NN on ImageNet (Table 1): pooled Res4; layers='all' adds Res2 and Res3.
_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/imagenet_features.py',
    '../../_base_/classification_runtime.py',
]

test_cfg = dict(type='KNNLoop')
evaluation = dict(protocol='knn', dataset='in1k')
