"""How well texts foretell what units do: similarities, predictions, and a score of each unit.

In come texts, images kept aside and activations [units, images]; out go scores with intervals.
``simulator`` is the image-text model, ``features`` are its images, ``correlate`` has the numbers of
a prediction, ``column`` scores every description of a run, ``senses`` says which of a unit's
proposed senses hold.
"""
