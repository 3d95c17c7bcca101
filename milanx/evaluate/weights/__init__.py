"""What ranks best: the weights of a describer's ranking, chosen where no report looks.

In come a describer and photos for development; out go weights, with what they gain on units that
did not choose them. ``lists`` holds what is for development and what reports use, ``pools`` the
texts that were found for a unit with every term's value, ``gather`` makes them, ``choose`` searches
a grid.
"""
