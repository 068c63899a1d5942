_base_ = ['./imagenet100_knn.py']

data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
test_dataloader = _base_.val_dataloader
test_evaluator = []
test_cfg = _base_.val_cfg
val_dataloader = None
val_evaluator = None
val_cfg = None
