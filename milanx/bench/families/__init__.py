"""A small member of each family of models of timm's, transformers' and torchvision's.

In comes a family's name, out goes a target with random weights. Each of ``timms``, ``huggingface``
and ``torchvisions`` has the table of its library's families and loads one; ``member`` is what such
a table holds.
"""
