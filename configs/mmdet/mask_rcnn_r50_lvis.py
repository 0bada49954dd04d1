# Mask R-CNN on LVIS v1, mined beside ClassBalancedDataset: repeats of rare classes stay, and mining
# moves the draws among them. mask_rcnn_r50_lvis_instead.py lets mining do all of it.
_base_ = "mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py"
custom_imports = dict(imports=["hardmine_mmdet"], allow_failed_imports=False)
train_dataloader = dict(sampler=dict(type="HardMiningSampler"))
custom_hooks = [
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",
        index="data/lvis_v1/train.hmx",
        clusters="kmeans:10,context=0.4+whole",
        # LVISMetric names both alike and writes masks last.
        iou_type="segm",
        # A class with few validation instances has an AP that is mostly noise. ClassBalancedDataset
        # evens out frequency already, so mining leaves that alone.
        miner=dict(policy="bottom:30%", balance=0.0, budget=0.4, need_options=dict(prior=20)),
    )
]
