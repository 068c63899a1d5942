# The search layers of Table 8.
evaluations = [
    'configs/classification/knn/knn_resnet50_in100.py',
    'configs/classification/linear/resnet50_8xb32-linear-coslr-100e_in100.py',
]
variants = [
    dict(
        name=name,
        config=f'configs/scfs/scfs_resnet50_8xb32-{recipe}-200e_in100.py',
    )
    for name, recipe in (
        ('res2', 'mcrop-res2-coslr'),
        ('res2-res3', 'mcrop-res2-res3-coslr'),
        ('res2-res3-res4', 'mcrop-coslr'),
    )
]
