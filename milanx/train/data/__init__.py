"""Photos that are trained on, and where they come from.

In come files and folders in the common layouts; out go photos with names, captions and regions.
``photos`` encodes them, ``stacked`` reads several sources as one, ``sources`` and ``coco`` read
layouts, ``milannotations`` people's descriptions of the units of ``networks``, ``summaries`` joins
these, ``kinds`` reads tables of classes and words, ``splits`` says what is held out.
"""
