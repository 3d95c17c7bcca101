"""What is said: GPT-2 and its tokenizer, exact log-probabilities, p(d), hypotheses, joined texts.

In come prefixes [u, p, width] and texts; out go texts with log p in nats. ``gpt2`` loads and folds,
``incremental`` and ``score`` compute step by step and behind shared prefixes, ``prior`` is p(d),
``hypotheses`` searches by ``settings``, ``connectives`` divides and joins texts, ``words`` knows
their forms, ``people`` what is never said, ``compare`` and ``meanings`` tell how alike they are,
``remembered`` keeps what was computed of them.
"""
