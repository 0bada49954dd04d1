# RTMDet-s on COCO. Its base config has custom_hooks of its own, which a new list would replace.
_base_ = "mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py"
custom_imports = dict(imports=["hardmine_mmdet"], allow_failed_imports=False)
train_dataloader = dict(sampler=dict(type="HardMiningSampler"))
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",
        index="data/coco/train2017.hmx",
        # Validation comes every tenth epoch, so a boost gets 5 rounds to show a gain.
        miner=dict(need=dict(patience=5)),
    ),
]
