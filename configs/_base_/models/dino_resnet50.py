model = dict(
    type='DINO',
    # As torchvision's, which the authors train.
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(3,),
        zero_init_residual=False,
    ),
    neck=dict(type='DINONeck', num_prototypes=65536),
    head=dict(type='DINOHead'),
)
