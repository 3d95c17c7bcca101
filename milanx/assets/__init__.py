"""The bundled describer, simulator, probe photos, words and kinds: folders of data, no code."""
