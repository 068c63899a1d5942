# SimCLR's protocol on 10% of ImageNet's labels (Table 2).
_base_ = ['./resnet50_8xb128-semi-1percent-coslr-60e_in1k.py']

train_dataloader = dict(dataset=dict(ann_file='meta/train_10percent.txt'))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=True,
        begin=0,
        end=30,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=30)
evaluation = dict(protocol='semi-10%')
