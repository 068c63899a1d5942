# Each local view's own region is cut out of the teacher's maps instead of
# searched ("ROI Crop", Table 7).
_base_ = ['./scfs_resnet50_8xb32-mcrop-coslr-200e_in100.py']

model = dict(search=dict(type='RoIFeatureSearch'))
