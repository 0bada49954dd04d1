# RetinaNet on COCO for 12 epochs, with mining after each.
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

# All that mining adds. For a base config with custom_hooks of its own see rtmdet_s_coco.py.
custom_imports = dict(imports=["hardmine_mmdet"], allow_failed_imports=False)
train_dataloader = dict(sampler=dict(type="HardMiningSampler"))
custom_hooks = [
    dict(
        type="HardMiningHook",
        encoder="RN50x64/openai",  # MODEL/WEIGHTS, as open_clip names them
        index="data/coco/train2017.hmx",  # built by the first run
        clusters="kmeans:10,context=0.4+whole",
    )
]
