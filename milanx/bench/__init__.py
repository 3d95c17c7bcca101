"""How fast extraction and describing are on this machine, as ratios within one run.

In come targets or a run; out go seconds and ratios. ``extract`` over the bare forward pass,
``describe`` over its arithmetic.
"""
