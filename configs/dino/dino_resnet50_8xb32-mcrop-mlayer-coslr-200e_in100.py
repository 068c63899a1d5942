# With multi-layer contrast: the global terms of SCFS on Res2, Res3 and Res4,
# at their weight of 0.5, and no search ("DINO w ML", Table 7).
_base_ = ['../scfs/scfs_resnet50_8xb32-mcrop-coslr-200e_in100.py']

model = dict(search_views='none')
