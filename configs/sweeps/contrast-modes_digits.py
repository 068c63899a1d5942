# The contrast modes of Table 7, MoCo v2 and CO2 on digit scenes: minutes a
# variant on a CPU. First make the scenes:
#   python tools/dataset_converters/make_digit_scenes.py
evaluations = ['configs/classification/knn/knn_resnet18-w16_digits.py']
dino = 'configs/dino/dino_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
scfs = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
without_local_views = {'multi_crop.num_local': 0}
# Network, data, optimizer and length of the others. 3000 scenes fill a queue
# of 1024 negatives three times an epoch.
small_moco = {
    'model.queue_len': 1024,
    'model.momentum': 0.01,
    'model.backbone': dict(depth=18, stem_channels=16, base_channels=16),
    'model.neck': dict(in_channels=128, hid_channels=128),
    'train_dataloader': dict(batch_size=64, num_workers=1),
    'train_dataloader.dataset.data_root': 'data/digit-scenes',
    'multi_crop.global_size': 64,
    'optim_wrapper.optimizer': dict(
        _delete_=True, type='AdamW', lr=0.003, weight_decay=0.04
    ),
    'param_scheduler.0': dict(T_max=14, end=14),
    'train_cfg.max_epochs': 14,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.logger.interval': 10,
}
variants = [
    dict(name='dino-wo-mc', config=dino, cfg_options=without_local_views),
    dict(name='dino', config=dino),
    dict(
        name='dino-ml',
        config=scfs,
        cfg_options={'model.search_views': 'none'},
    ),
    dict(name='scfs', config=scfs),
    dict(
        name='roi-crop',
        config=scfs,
        cfg_options={'model.search.type': 'RoIFeatureSearch'},
    ),
    dict(name='scfs-wo-mc', config=scfs, cfg_options=without_local_views),
    dict(
        name='scfs-wo-mc-alone',
        config=scfs,
        cfg_options={
            **without_local_views,
            'model.head.loss_weight': 0,
            'model.head.search_loss': dict(
                type='FeatureSearchLoss',
                global_weight=0,
                search_weight=1.0,
            ),
        },
    ),
    dict(
        name='mocov2',
        config='configs/peers/mocov2_resnet50_8xb32-coslr-200e_in1k.py',
        defaults=small_moco,
        cfg_options=without_local_views,
    ),
    dict(
        name='mocov2-co2',
        config='configs/co2/mocov2-co2_resnet50_8xb32-coslr-200e_in1k.py',
        defaults=small_moco,
        cfg_options=without_local_views,
    ),
]
