# A backbone alone, and its Res2, Res3 and Res4.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(1, 2, 3)),
)
