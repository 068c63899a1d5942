# The contrast modes of Table 7. Of "SCFS w/o MC" it ticks the search between
# the global views alone, where other rows keep DINO's terms: here are both.
evaluations = [
    'configs/classification/knn/knn_resnet50_in100.py',
    'configs/classification/linear/resnet50_8xb32-linear-coslr-100e_in100.py',
]
# Whatever --cfg-options say of the others.
without_local_views = {'multi_crop.num_local': 0}
variants = [
    dict(
        name='dino-wo-mc',
        config='configs/dino/dino_resnet50_8xb32-coslr-200e_in100.py',
        cfg_options=without_local_views,
    ),
    dict(
        name='dino',
        config='configs/dino/dino_resnet50_8xb32-mcrop-coslr-200e_in100.py',
    ),
    dict(
        name='dino-ml',
        config='configs/dino/'
        'dino_resnet50_8xb32-mcrop-mlayer-coslr-200e_in100.py',
    ),
    dict(
        name='scfs',
        config='configs/scfs/scfs_resnet50_8xb32-mcrop-coslr-200e_in100.py',
    ),
    dict(
        name='roi-crop',
        config='configs/scfs/'
        'scfs_resnet50_8xb32-mcrop-roi-coslr-200e_in100.py',
    ),
    dict(
        name='scfs-wo-mc',
        config='configs/scfs/scfs_resnet50_8xb32-coslr-200e_in100.py',
        cfg_options=without_local_views,
    ),
    dict(
        name='scfs-wo-mc-alone',
        config='configs/scfs/scfs_resnet50_8xb32-coslr-200e_in100.py',
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
]
