"""Auditing: rules over descriptions, findings with their evidence, two models compared.

In comes a run and rules; out go `Finding`s. ``rules`` reads and checks them, ``match`` finds what
descriptions they concern, ``concepts`` says which images hold what a rule names, ``effects``
ablates, ``findings`` gathers all of it, ``versus`` compares two runs, ``sarif`` writes for GitHub.
"""
