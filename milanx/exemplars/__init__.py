"""Exemplars: one pass over the images, streaming statistics, top k, masks, the store.

In comes a `Request`; out goes an `ExemplarStore` on disk. ``request`` is what is asked for,
``inputs`` opens the target, layers and images that it names, ``estimate`` says what a pass needs,
``extract`` is the pass, ``job`` what of it resumes and merges, ``statistics`` the counts, ``topk``
the best of them, ``histogram`` the bins of values, ``numbers`` maxima and means being written,
``masks`` where a unit peaks, ``store`` the files, ``reading`` what is looked at when they are read,
``planted`` units whose meaning is known.
"""
