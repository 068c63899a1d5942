# The methods of Tables 1 and 4 that are here, and CO2. The recipes of Barlow
# Twins, BYOL and MoCo v3 have more than 32 images a GPU.
detection = [
    'configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py',
    'configs/detection/coco/mask-rcnn_r50-fpn_2x_coco.py',
]
variants = [
    dict(
        name=name,
        config=f'configs/{config}.py',
        evaluations=[
            'configs/classification/knn/knn_resnet50_in1k.py',
            'configs/classification/linear/'
            f'resnet50_8xb32-linear-{schedule}-100e_in1k.py',
        ],
    )
    # steplr: the protocol of MoCo, whose features are of a smaller scale.
    for name, config, schedule in (
        ('mocov1', 'peers/mocov1_resnet50_8xb32-steplr-200e_in1k', 'steplr'),
        ('mocov2', 'peers/mocov2_resnet50_8xb32-coslr-200e_in1k', 'steplr'),
        (
            'mocov1-co2',
            'co2/mocov1-co2_resnet50_8xb32-steplr-200e_in1k',
            'steplr',
        ),
        (
            'mocov2-co2',
            'co2/mocov2-co2_resnet50_8xb32-coslr-200e_in1k',
            'steplr',
        ),
        ('densecl', 'peers/densecl_resnet50_8xb32-coslr-200e_in1k', 'steplr'),
        ('simclr', 'peers/simclr_resnet50_8xb32-coslr-200e_in1k', 'coslr'),
        ('simsiam', 'peers/simsiam_resnet50_8xb32-coslr-200e_in1k', 'coslr'),
        (
            'swav',
            'peers/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px',
            'coslr',
        ),
        ('byol', 'peers/byol_resnet50_16xb256-coslr-200e_in1k', 'coslr'),
        (
            'barlowtwins',
            'peers/barlowtwins_resnet50_8xb256-coslr-300e_in1k',
            'coslr',
        ),
        (
            'mocov3',
            'peers/mocov3_resnet50_8xb512-amp-coslr-300e_in1k',
            'coslr',
        ),
        ('dino', 'dino/dino_resnet50_8xb32-mcrop-coslr-200e_in1k', 'coslr'),
        ('scfs', 'scfs_r50', 'coslr'),
    )
]
