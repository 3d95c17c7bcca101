"""How fast extracting, describing, corrupting and ablating are here; what of models is read.

In come targets, a run or images; out go seconds and ratios. ``extract`` over the bare forward pass,
``describe`` over its arithmetic, ``corrupt`` by type and by workers, ``act`` through the tail of a
network over all of it. ``models`` runs what is read of many models, of the room ``families``,
through ``checks`` and ``places``, and ``table`` says it; the room ``planted`` says whether what was
planted is found.
"""
