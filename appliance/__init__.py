"""Picket: a camera node that finds the few people on a watchlist and erases the rest."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("picket")
