"""Training of describers: from a recipe and photos to a describer's folder.

In comes a recipe; out goes a folder that `milanx.Describer.load` reads. ``recipe`` reads and checks
the settings, ``loop`` goes through the stages, ``stage_cache`` keeps what each made, ``card``
writes the README. The rooms, from the ground up: ``data``, ``units`` beside ``engine``, ``stages``.
"""
