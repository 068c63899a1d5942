_base_ = ['./imagenet_bs32_cls.py']

train_dataloader = dict(
    batch_size=256,
    sampler=dict(type='InfiniteSampler'),  # the run counts iterations
    dataset=dict(
        type='OxfordIIITPet',
        data_root='data/Oxford-IIIT_Pets',
        split='trainval',
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='OxfordIIITPet', data_root='data/Oxford-IIIT_Pets', split='test'
    ),
)
test_dataloader = val_dataloader

# The recall is the mean accuracy of the classes, which is reported here.
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='SingleLabelMetric', items=['recall']),
]
test_evaluator = val_evaluator
