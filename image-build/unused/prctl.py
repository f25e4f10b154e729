"""In the place of python-prctl, which picamera2 imports to name its worker processes."""
