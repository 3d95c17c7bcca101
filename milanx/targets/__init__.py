"""Targets: a model by name or module, its weights, its layers, and how its units are read.

In comes a name or a `torch.nn.Module`; out go a `Target`, `LayerInfo`s and maps [b, u, h, w].
``zoo`` loads by name, ``weights`` reads checkpoints, ``layers`` discovers, ``units`` names and
shapes units, ``capture`` reads them by hooks.
"""
