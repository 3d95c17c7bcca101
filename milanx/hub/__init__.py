"""The Hugging Face Hub: folders that come from a repository, and files that go to one.

In comes an `Address`; out goes a folder of whole, real files, or a commit. ``address`` reads
addresses, ``fetch`` gets folders, ``send`` makes a `Parcel`'s commit; ``reach`` says whether a
server answers before libraries ask it, ``refusals`` in words what it answers, ``content`` what a
repository may hold, ``card`` is its README.md.
Nothing here knows what a describer or a run is.
"""
