# RetinaNet on COCO, 12 epochs, the draws mined after each.
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

# All that mining adds. A base with custom_hooks of its own needs them kept: see rtmdet_s_coco.py.
custom_imports = dict(imports=["hardmine_mmdet"], allow_failed_imports=False)
train_dataloader = dict(sampler=dict(type="HardMiningSampler"))
custom_hooks = [
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",  # what open_clip calls it, as MODEL/WEIGHTS
        index="data/coco/train2017.hmx",  # built by the first run, opened by later ones
        clusters="kmeans:10,context=0.4+whole",
        miner=dict(policy="mean", budget=0.4),  # HardMiner's arguments
    )
]
