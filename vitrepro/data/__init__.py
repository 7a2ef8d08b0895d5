"""Images in and out: where a data set is, its decoded copy, its splits, batches and augmentation.

Only `augment` imports torch.
"""
