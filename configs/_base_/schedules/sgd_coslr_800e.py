_base_ = ['./sgd_coslr_200e.py']

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0048,
        by_epoch=True,
        begin=10,
        end=800,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=800)
