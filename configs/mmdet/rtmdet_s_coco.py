# RTMDet-s on COCO. It brings hooks of its own, which a list in a child config would replace.
_base_ = "mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py"
custom_imports = dict(imports=["hardmine_mmdet"], allow_failed_imports=False)
train_dataloader = dict(sampler=dict(type="HardMiningSampler"))
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",
        index="data/coco/train2017.hmx",
        # Validation comes every tenth epoch: let a boost stay until it can have answered. Of 300
        # epochs with Mosaic and MixUp no two show an image alike: let it be drawn far ahead.
        miner=dict(policy="mean", budget=0.4, fade=100.0, patience=5),
    ),
]
