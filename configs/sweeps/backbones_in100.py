# Other backbones (Table 10).
variants = [
    dict(
        name=f'{method}-{backbone}',
        config=f'configs/{method}/'
        f'{method}_{backbone}_8xb32-mcrop-coslr-200e_in100.py',
        evaluations=[
            f'configs/classification/knn/knn_{backbone}_in100.py',
            f'configs/classification/linear/{backbone}_{batch}-linear-'
            'coslr-100e_in100.py',
        ],
    )
    for backbone, batch in (
        ('resnet101', '8xb32'),
        ('vit-small-p16', '8xb128'),
        ('vit-base-p16', '8xb128'),
    )
    for method in ('dino', 'scfs')
]
