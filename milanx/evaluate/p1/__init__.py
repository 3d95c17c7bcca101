"""P1, named outputs: do descriptions of logits name their classes, or close kin?

In comes a run over labelled images; out goes a report. ``protocol`` is P1 over the ``logits`` that
have images, ``upper`` its upper rows, of what networks have ``seen``; ``kin`` plants units of
classes that no description named.
"""
