"""Picket: a camera node that finds the few people on a watchlist and erases the rest."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """`__version__`, looked up when somebody asks: that loads more than a service's whole start."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version

    return version("picket")
