"""Faces become tracks; a track's embeddings become one fused template."""
