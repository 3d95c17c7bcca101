"""Exemplars: one pass over the images, streaming statistics, top k, masks, the store.

In come a target, layers and probe images; out goes an `ExemplarStore` on disk. ``extract`` is the
pass, ``job`` what of it resumes and merges, ``statistics`` the counts, ``masks`` where a unit
peaks, ``store`` the files, ``planted`` units whose meaning is known.
"""
