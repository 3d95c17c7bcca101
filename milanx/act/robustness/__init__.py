"""How well models do on images that were harmed, and on cues in conflict, side by side.

In come models and images; out go errors with intervals. ``evaluate`` is the whole of it,
``subjects`` the models that are compared, ``results`` what comes out. ``made`` corrupts images on
the fly, ``released`` reads the published ImageNet-C, ``cues`` the cue-conflict images; ``measure``
runs every model on every picture and resumes, ``together`` runs once what an edit and its model
share, ``figures`` makes the table.
"""
