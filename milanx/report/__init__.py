"""What people look at: tables in the terminal, figures, the pages of a run and of an audit.

In come runs and what was done with them; out go text, png and html. ``terminal``, ``unit``,
``found`` and ``edits`` print tables, ``plots`` and ``plots_analysis`` draw, ``page`` and ``audit``
write pages, ``why`` says why a text won, ``sure`` how sure it is and who comes first,
``neighbours`` who is alike, ``meaning`` makes the vectors by which a page is searched;
``robustness``, ``shortcut``, ``planted``, ``metrics``, ``stability`` and ``senses`` show what was
measured, ``sharing`` what is pushed, ``check`` reads folders whole, ``cells`` writes what tables
hold. All of them write to a ``screen``.
"""
