"""Exchange: runs written as what other tools read, and read from what they wrote.

In comes a run and the name of a format, or a place in that format; out go files, or a run.
``export`` and ``taking`` know the formats; each has a file: ``milan`` (MAIA's too), ``dissect``,
``lens`` (SemanticLens), ``fiftyone`` and ``rows`` (csv, jsonl). What is read stands as a
``bundle`` until ``building`` makes a run of it; ``cells`` are those of csv files, ``place`` is
where an export goes.
"""
