# Mask R-CNN on LVIS v1 with mining in place of ClassBalancedDataset: the data set is taken out of
# the wrapper, so it holds each image once, and mining balances class frequency as well.
_base_ = "mask_rcnn_r50_lvis.py"
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_dataloader.dataset.dataset))
custom_hooks = [
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",
        index="data/lvis_v1/train.hmx",
        clusters="kmeans:10,context=0.4+whole",
        iou_type="segm",
        miner=dict(need=dict(policy="bottom:30%", prior=20)),
    )
]
