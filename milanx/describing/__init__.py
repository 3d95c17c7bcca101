"""Where features and language meet: p(d|E), critic, response, the ranking, the describer.

In come exemplar sets; out go `Description`s. ``set_encoder`` makes prefixes, ``critic`` says how
far texts and sets agree, ``response`` how well texts foretell activations, ``ranker`` ranks,
``describer`` is all of it as one object, ``folder`` reads its files, ``concepts`` does without
language models.
"""
