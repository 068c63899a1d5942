_base_ = ['./imagenet_bs32_cls.py']

train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='InfiniteSampler'),  # the run counts iterations
    dataset=dict(
        type='FGVCAircraft',
        data_root='data/fgvc-aircraft-2013b',
        split='trainval',
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='FGVCAircraft', data_root='data/fgvc-aircraft-2013b', split='test'
    ),
)
test_dataloader = val_dataloader

# The recall is the mean accuracy of the classes, which is reported here.
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='SingleLabelMetric', items=['recall']),
]
test_evaluator = val_evaluator
