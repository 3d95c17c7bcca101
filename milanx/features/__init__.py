"""What is seen: frozen image-text encoders, pooling under masks, pixels, evidence of sets.

In come a store's views and masks; out go features [u, k, f, d] as `Evidence`. ``encoder`` is the
interface and the pooling, ``smallclip`` the bundled one, ``openclip`` any other with its
``towers``, ``pixels`` what is read off colours and lines, ``contrast`` views of what a unit is not,
``evidence`` gathers all of it, ``classes`` is what an encoder's own classifier says of it,
``shares`` divides work over processes, ``encoded`` keeps views that were encoded.
"""
