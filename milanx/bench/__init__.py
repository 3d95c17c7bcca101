"""How fast extraction, describing and corrupting are on this machine, as ratios within one run.

In come targets, a run or images; out go seconds and ratios. ``extract`` over the bare forward pass,
``describe`` over its arithmetic, ``corrupt`` by type and by workers.
"""
