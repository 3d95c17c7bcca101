"""The experiment of spurious text: names on training images, and a test where they lie.

In come labelled images; out go the same with class names written over some, networks trained on
them, and what pruning by descriptions gains over controls. ``make`` writes the images,
``lettering`` the words over them.
"""
