# k-NN on ImageNet-100 (Tables 7 and 8), of every layer (Fig. 4).
_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/imagenet100_features.py',
    '../../_base_/classification_runtime.py',
]

test_cfg = dict(type='KNNLoop', layers='all')
evaluation = dict(protocol='knn', dataset='in100')
