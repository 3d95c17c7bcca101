"""Targets: a model by name or module, its weights, its layers, and how its units are read.

In comes a name or a `torch.nn.Module`; out go a `Target`, `LayerInfo`s and maps [b, u, h, w].
``zoo`` loads by name, ``weights`` and ``checkpoints`` read weights, ``given`` keeps a module as its
owner gave it, ``layers`` discovers (``probing``, ``layout``, ``watch``, ``gates``, ``inert`` each
answer one question of it), ``functions`` names nonlinearities, ``units`` names and shapes units,
``capture`` reads them by hooks.
"""
