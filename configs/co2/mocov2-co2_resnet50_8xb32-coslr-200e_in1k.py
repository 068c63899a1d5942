_base_ = '../peers/mocov2_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(
    type='MoCoCO2',
    consistency=dict(type='ConsistencyLoss', weight=0.3, temperature=0.05),
)
# mmpretrain's steps, but for those that are not finite: they are skipped.
optim_wrapper = dict(type='PerParamClipOptimWrapper', precision='fp32')
