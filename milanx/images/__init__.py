"""Probe images: from folders, parquet files and the built-in ones to views, groups and the split.

In come sources (names and paths); out go `ImageRecord`s, views uint8 [H, W, 3], and which images
are kept aside. ``probe`` opens sources as one sequence, ``sources`` reads each kind, ``builtin``
makes the built-in ones of ``photos`` (each with its credit) and ``composed`` views, ``preprocess``
makes views, ``splits`` holds groups out.
"""
