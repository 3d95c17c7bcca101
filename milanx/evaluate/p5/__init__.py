"""P5: is the score itself sane? It must fall when a concept's labels are made worse.

In comes a run of a classifier's logits over labelled images, and units that are built; out goes a
report: of each measure, for how many units it falls. ``protocol`` evaluates, ``known`` are the
units, ``worse`` what is done to their labels, ``measures`` what is asked.
"""
