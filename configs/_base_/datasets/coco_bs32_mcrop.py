_base_ = ['./imagenet_bs32_mcrop.py']

# COCO's images without their annotations: uncurated pre-training (Table 6).
train_dataloader = dict(
    dataset=dict(data_root='data/coco', data_prefix='train2017'),
)
