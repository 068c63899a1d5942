# Search on Res2 and Res3 (Table 8).
_base_ = ['./scfs_resnet50_8xb32-mcrop-coslr-200e_in100.py']

model = dict(search_layers=[1, 2])
