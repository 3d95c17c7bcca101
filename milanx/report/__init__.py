"""What people look at: tables in the terminal, figures, the page of a run.

``terminal`` and ``edits`` print tables, ``plots`` draws, ``page`` writes the page.
"""
