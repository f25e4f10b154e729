"""The composition roots: the only files that name concrete classes."""
