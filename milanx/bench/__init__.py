"""How fast extraction, describing and corrupting are on this machine; what of models is read.

In come targets, a run or images; out go seconds and ratios. ``extract`` over the bare forward pass,
``describe`` over its arithmetic, ``corrupt`` by type and by workers. ``models`` checks what of many
families of models is read, and how; the room ``planted`` whether what was planted is found.
"""
