"""Light becomes a Frame: picamera2, a recording, or a scene of photographs walking by."""
