"""The bundled describer, simulator and probe photos: folders of data, no code."""
