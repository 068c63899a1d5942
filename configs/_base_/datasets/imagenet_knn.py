# For k-NN as validation of a pre-training: a labeled bank, the training
# images as the test pipeline makes them, and the validation images.
_base_ = ['./imagenet_val.py']

# The workers would be idle while a pre-training goes on.
val_dataloader = dict(persistent_workers=False)
val_evaluator = []  # the loop measures by itself
val_cfg = dict(
    type='KNNLoop',
    bank_dataloader={
        **_base_.val_dataloader,
        'persistent_workers': False,
        'dataset': {**_base_.val_dataloader.dataset, 'split': 'train'},
    },
)
