model = dict(
    type='SCFS',
    # Outputs: Res2, Res3 and Res4 of the paper; initialised as torchvision's,
    # which the authors train.
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(1, 2, 3),
        zero_init_residual=False,
    ),
    neck=dict(type='DINONeck', in_channels=2048, num_prototypes=65536),
    search_neck=dict(type='FeatureSearchNeck', in_channels=[512, 1024, 2048]),
    head=dict(type='SCFSHead'),
)
