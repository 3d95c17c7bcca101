"""Does milanx find what was planted: text detectors in a real model, units that rules concern.

In come labelled or annotated photos; out go shares found, precision and accuracies. ``text`` plants
detectors of lettering and prunes what descriptions find, ``audited`` plants units of known meaning
and audits their descriptions. ``settings`` says what is asked for.
"""
