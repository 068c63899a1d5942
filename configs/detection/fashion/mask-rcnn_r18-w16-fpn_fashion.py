# The demo's detector for the fashion scenes of docs/en/evidence.md, which
# tools/dataset_converters/make_fashion_scenes.py makes.
_base_ = ['../digits/mask-rcnn_r18-w16-fpn_demo_digits.py']

data_root = 'data/fashion-scenes/'
metainfo = dict(
    classes=(
        *('tshirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal'),
        *('shirt', 'sneaker', 'bag', 'ankle_boot'),
    )
)
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

# Garments are 25 to 120 px long: wide shoes, narrow trousers.
model = dict(rpn_head=dict(anchor_generator=dict(ratios=[0.6, 1.0, 1.6])))
