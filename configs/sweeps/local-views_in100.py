# The number of local views, 0 to 10 (Fig. 5, which prints no figures).
evaluations = [
    'configs/classification/knn/knn_resnet50_in100.py',
    'configs/classification/linear/resnet50_8xb32-linear-coslr-100e_in100.py',
]
variants = [
    dict(
        name=f'{method}-{number}',
        config=f'configs/{method}/'
        f'{method}_resnet50_8xb32-mcrop-coslr-200e_in100.py',
        cfg_options={'multi_crop.num_local': number},
    )
    for number in (0, 2, 4, 6, 8, 10)
    for method in ('dino', 'scfs')
]
