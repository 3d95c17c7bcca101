"""How anything is trained: steps on accelerate, checkpoints, schedule, trackers.

In come a model and the loss of a batch; out go its weights and the history. ``fit`` is the loop,
``checkpoint`` its state in one file, ``schedule`` rates and optimisers, ``losses`` of texts,
``lora`` adapters, ``quant`` 8 and 4 bits, ``track`` figures on the way.
"""
