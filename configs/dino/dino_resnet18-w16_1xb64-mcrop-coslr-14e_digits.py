# The baseline of SCFS on digit scenes: as that, without the search.
_base_ = ['../scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py']

model = dict(
    _delete_=True,
    type='DINO',
    backbone=dict(_base_.model.backbone, out_indices=(3,)),
    neck=_base_.model.neck,
    head=dict(type='DINOHead', center_momentum=0.5),
)
