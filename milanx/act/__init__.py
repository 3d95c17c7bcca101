"""Acting on descriptions.

In come runs and images; out go figures. ``corruptions`` makes the corrupted images of ImageNet-C,
``corruption_error`` their mean errors, by those of ``alexnet``.
"""
