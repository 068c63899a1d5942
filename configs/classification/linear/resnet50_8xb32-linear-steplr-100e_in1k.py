# Linear probing as MoCo and its followers have it: 30 for each 256 images, a
# tenth of it from epoch 60 and again from epoch 80.
_base_ = ['./resnet50_8xb32-linear-coslr-100e_in1k.py']

optim_wrapper = dict(optimizer=dict(lr=30.0))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[60, 80], gamma=0.1),
]
