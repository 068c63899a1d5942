# VOC2007 classification by a linear SVM for each class on pooled Res4 (Goyal
# et al., 2019).
_base_ = [
    '../../_base_/models/resnet50_features.py',
    '../../_base_/datasets/voc07_features.py',
    '../../_base_/classification_runtime.py',
]

test_cfg = dict(type='LinearSVMLoop')
evaluation = dict(protocol='svm', dataset='voc07')
