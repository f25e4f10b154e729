"""In the place of PiDNG's camera definitions."""

Picamera2Camera = None
