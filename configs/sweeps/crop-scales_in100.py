# The scale of the local crops (Table 9), which the paper measures by linear
# probing.
evaluations = [
    'configs/classification/linear/resnet50_8xb32-linear-coslr-100e_in100.py',
]
variants = [
    dict(
        name=f'{method}-{low}-{high}',
        config=f'configs/{method}/'
        f'{method}_resnet50_8xb32-mcrop-coslr-200e_in100.py',
        cfg_options={
            'multi_crop.local_scale': (low, high),
        },
    )
    for low, high in ((0.05, 0.14), (0.14, 0.25), (0.25, 0.4), (0.4, 0.6))
    for method in ('dino', 'scfs')
]
