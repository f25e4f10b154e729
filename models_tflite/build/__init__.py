"""Rebuilds the models of this folder and proves the committed files equal: see __main__."""
