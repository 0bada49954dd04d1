# RetinaNet on generated scenes, offline and on a CPU. Train it with MMDetection's own script:
#
#   hardmine scenes data/scenes --images 2000 --seed 0
#   python tools/train.py configs/mmdet/retinanet_r18_scenes.py
_base_ = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
custom_imports = dict(
    # The second lets torch 2.6 and later resume from mmengine's checkpoints.
    imports=["hardmine_mmdet", "hardmine_mmdet.safe_checkpoints"],
    allow_failed_imports=False,
)

data_root = "data/scenes/"
classes = tuple(
    "person,car,tree,cup,bird,house,flower,bicycle,dog,apple,chair,cat,bus,fish,umbrella,balloon,"
    "truck,banana,traffic light,sailboat,clock,butterfly,airplane,stop sign,strawberry,rabbit,"
    "carrot,mushroom,guitar,ice cream,cactus,hammer,scissors,key,pineapple,snail".split(",")
)
load = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(224, 224), keep_ratio=True),
]
keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


model = dict(
    backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False),
    bbox_head=dict(num_classes=len(classes)),
)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type="HardMiningSampler"),
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/train.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=classes),
        pipeline=[*load, dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs")],
    ),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/val.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=classes),
        pipeline=[*load, dict(type="PackDetInputs", meta_keys=keys)],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/val.json")
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.005))
custom_hooks = [dict(type="HardMiningHook", encoder="tiny")]
