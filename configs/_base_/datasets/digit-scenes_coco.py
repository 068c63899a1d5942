# Made by tools/dataset_converters/make_digit_scenes.py, in COCO's layout.
_base_ = ['mmdet::_base_/datasets/coco_instance.py']

data_root = 'data/digit-scenes/'
metainfo = dict(classes=tuple('0123456789'))
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='InfiniteSampler'),  # the run counts iterations
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        # Without flips: a mirrored digit is another shape.
        pipeline=[
            dict(type='mmpretrain.LoadImage'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            resize,
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        pipeline=[
            dict(type='mmpretrain.LoadImage'),
            resize,
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                type='PackDetInputs',
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
            ),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
