model = dict(
    type='SCFS',
    # Outputs: Res2, Res3 and Res4 of the paper; initialized as torchvision's,
    # which the authors train.
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(1, 2, 3),
        zero_init_residual=False,
    ),
    neck=dict(type='DINONeck', num_prototypes=65536),
    search_neck=dict(type='FeatureSearchNeck'),
    head=dict(type='SCFSHead'),
)
