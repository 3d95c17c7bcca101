"""Where features and language meet: p(d|E), critic, response, the ranking, the describer.

In come exemplar sets; out go `Description`s. ``set_encoder`` makes prefixes, ``critic`` says how
far texts and sets agree, ``response`` how well texts foretell activations, ``units`` asks both of
``texts``; ``search`` finds texts, ``ranker`` ranks them as ``candidates`` by ``settings``;
``describer`` is all of it as one object, made of ``parts``, which ``folder`` reads and
``checks`` looks at; ``trained`` is what its folder tells of its training; ``concepts`` and
``dissect`` do without language models, ``ways`` chooses, ``parcel`` packs a describer for the Hub.
"""
