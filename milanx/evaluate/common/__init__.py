"""What the protocols share: rows beside a method, names of classes.

In come texts and what scores them; out go scores a unit, float [n]. ``rows`` are those of no method
at all, ``claims`` settles differences of methods, ``names`` knows the accepted names of classes.
"""
