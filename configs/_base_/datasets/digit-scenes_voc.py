# Made by tools/dataset_converters/make_digit_scenes.py, in VOC's layout. Not
# mmdet's VOCDataset: evaluation would take its classes for VOC's twenty.
_base_ = ['./voc0712_ms.py']

data_root = 'data/digit-scenes/'
data_prefix = dict(sub_data_root='VOC2007/')
metainfo = dict(classes=tuple('0123456789'))
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='XMLDataset',
        data_root=data_root,
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=data_prefix,
        metainfo=metainfo,
        # Without flips: a mirrored digit is another shape.
        pipeline=[
            dict(type='mmpretrain.LoadImage'),
            dict(type='LoadAnnotations', with_bbox=True),
            resize,
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        type='XMLDataset',
        data_root=data_root,
        metainfo=metainfo,
        pipeline=[
            dict(type='mmpretrain.LoadImage'),
            resize,
            dict(type='LoadAnnotations', with_bbox=True),
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
