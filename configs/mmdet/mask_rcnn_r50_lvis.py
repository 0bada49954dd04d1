# Mask R-CNN on LVIS v1 with mining and ClassBalancedDataset: the wrapper repeats images of rare
# classes, and mining adds what is weak. mask_rcnn_r50_lvis_instead.py leaves both to mining.
_base_ = "mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py"
custom_imports = dict(imports=["hardmine_mmdet"], allow_failed_imports=False)
train_dataloader = dict(sampler=dict(type="HardMiningSampler"))
custom_hooks = [
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",
        index="data/lvis_v1/train.hmx",
        clusters="kmeans:10,context=0.4+whole",
        # LVISMetric reports boxes and masks under the same names, masks last.
        iou_type="segm",
        # The prior shrinks APs of few validation instances, which are mostly noise. With balance=0
        # mining leaves class frequency to ClassBalancedDataset.
        miner=dict(need=dict(policy="bottom:30%", prior=20), weights=dict(balance=0.0)),
    )
]
