"""Plain-language descriptions of what the units of a vision model detect."""

__version__ = "0.1.0"
