"""In the place of PiDNG's writer."""

PICAM2DNG = None
