# The pre-trainings of docs/en/evidence.md: labels, DINO and SCFS on the
# fashion scenes, as long as tools/recipe.py makes a run on 5000 images. First
# make the scenes: tools/dataset_converters/make_fashion_scenes.py. The
# checkpoints on the way stay, to be compared. For k-NN:
#   --eval-cfg-options test_dataloader.dataset.data_root=data/fashion-scenes \
#   test_cfg.bank_dataloader.dataset.data_root=data/fashion-scenes
evaluations = ['configs/classification/knn/knn_resnet18-w16_digits.py']
scfs = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
dino = 'configs/dino/dino_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
labels = (
    'configs/classification/semi_supervised/'
    'resnet18-w16_1xb64-semi-10percent-coslr-60e_digits.py'
)
fifty_epochs = {
    'train_dataloader.dataset.data_root': 'data/fashion-scenes',
    'train_cfg.max_epochs': 50,
    'default_hooks.checkpoint': dict(interval=10, max_keep_ckpts=-1),
}
recipe = fifty_epochs | {
    'train_dataloader.dataset.data_prefix': 'train',
    'default_hooks.pictures': None,
}
variants = [
    dict(
        name='supervised',
        config=labels,
        defaults=fifty_epochs
        | {
            'train_dataloader.dataset.indices': None,
            'val_dataloader.dataset.data_root': 'data/fashion-scenes',
            'optim_wrapper.optimizer.weight_decay': 0.0001,
        },
    ),
    dict(name='dino', config=dino, defaults=recipe),
    dict(name='scfs', config=scfs, defaults=recipe),
    dict(
        name='scfs-first',
        config=scfs,
        defaults=recipe,
        cfg_options={'model.search_views': 'first'},
    ),
]
