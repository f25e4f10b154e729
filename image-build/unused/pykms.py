"""In the place of pykms: picamera2's preview by DRM makes tables of its pixel formats on import."""

from __future__ import annotations


class _Named(type):
    def __getattr__(cls, name: str) -> str:
        return name


class PixelFormat(metaclass=_Named):
    """Any format there may be, by its name."""
