# Mask R-CNN on LVIS v1, mined instead of ClassBalancedDataset: the data set is taken out of its
# wrapper and every image stands in it once.
_base_ = "mask_rcnn_r50_lvis.py"
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_dataloader.dataset.dataset))
