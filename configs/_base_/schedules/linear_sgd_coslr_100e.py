# DINO's linear probing: 0.3 for each 256 images on a ResNet-50, to 0 by a
# cosine that steps every epoch, without weight decay.
_base_ = ['mmpretrain::_base_/schedules/imagenet_sgd_coslr_100e.py']

train_cfg = dict(type='ResumableEpochLoop')
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
auto_scale_lr = dict(base_batch_size=256, enable=False)
