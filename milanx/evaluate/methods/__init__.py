"""All methods in one harness: the same exemplars, masks and images, one table a protocol.

In come a run (or planted units) and what the methods need; out goes a report with a row a method.
``say`` is what each of them says; ``tables`` scores it by P1 and P3, ``planted`` by P2.
"""
