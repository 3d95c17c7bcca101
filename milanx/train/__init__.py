"""Training of describers: from a recipe and photos to a describer's folder.

In comes a recipe; out goes a folder that `milanx.Describer.load` reads. ``recipe`` reads and checks
the settings (those of the data are in ``recipe_data``), ``loop`` lists the stages and goes through
them, ``describer_folder`` puts together what they made (``milan_folder`` those of a baseline),
``card`` writes the README, and ``tell`` says in an older folder what it was trained on.
``code_key`` says what cached results are known by. The rooms, from the ground up: ``data``,
``units`` beside ``engine``, ``stages``.
"""
