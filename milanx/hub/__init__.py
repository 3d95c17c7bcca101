"""The Hugging Face Hub: folders that come from a repository, and files that go to one.

In comes an `Address`; out goes a folder of whole, real files, or a commit. ``address`` reads
addresses, ``fetch`` gets folders, ``send`` makes a `Parcel`'s commit; ``refusals`` says in words
what the Hub answers, ``content`` what a repository may hold, ``card`` is its README.md.
Nothing here knows what a describer or a run is.
"""
