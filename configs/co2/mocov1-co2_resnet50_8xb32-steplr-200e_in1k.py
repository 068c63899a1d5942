_base_ = '../peers/mocov1_resnet50_8xb32-steplr-200e_in1k.py'

model = dict(
    type='MoCoCO2',
    consistency=dict(type='ConsistencyLoss', weight=10.0, temperature=0.04),
)
# mmpretrain's steps, but for those that are not finite: they are skipped.
optim_wrapper = dict(type='PerParamClipOptimWrapper', precision='fp32')
