# Mask R-CNN on LVIS v1, mined instead of ClassBalancedDataset: the data set is taken out of its
# wrapper, every image stands in it once, and mining evens out frequency as well.
_base_ = "mask_rcnn_r50_lvis.py"
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_dataloader.dataset.dataset))
custom_hooks = [
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",
        index="data/lvis_v1/train.hmx",
        clusters="kmeans:10,context=0.4+whole",
        iou_type="segm",
        # As ClassBalancedDataset does, keep on evening out to the end.
        miner=dict(
            policy="bottom:30%", balance=1.0, budget=0.4, fade=None, need_options=dict(prior=20)
        ),
    )
]
