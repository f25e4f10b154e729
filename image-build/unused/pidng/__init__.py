"""In the place of PiDNG, which picamera2 imports to write raw files."""
