"""Training of describers."""
