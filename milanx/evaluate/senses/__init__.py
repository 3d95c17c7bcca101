"""Do units of one meaning stay one, and are two distant meanings told apart?

In come photos of one side (`milanx.evaluate.confidence.lists`) and a describer; out goes how many
planted single meanings are split, and of how many planted pairs both senses are found. ``lists``
says what is planted where, ``planted`` builds the units, ``protocol`` describes them and counts.
"""
