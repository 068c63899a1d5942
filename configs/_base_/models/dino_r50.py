model = dict(
    type='DINO',
    backbone=dict(type='ResNet', depth=50, out_indices=(3,)),
    neck=dict(type='DINONeck', in_channels=2048, num_prototypes=65536),
    head=dict(type='DINOHead'),
)
