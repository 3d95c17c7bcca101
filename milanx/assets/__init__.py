"""The bundled describer: a folder of data, no code."""
