"""Which camera a node has: one `if` per source."""

from __future__ import annotations

from pathlib import Path

from appliance.camera.picamera import Picamera
from appliance.camera.recorded import RecordedCamera
from appliance.camera.scene import Scene, SceneCamera
from appliance.config import Config
from appliance.interfaces import Camera, Clock


def open_camera(config: Config, clock: Clock) -> Camera:
    """Switch the configured camera on.

    Raises:
        CameraError: it cannot be opened; says why.
        ConfigError: a scene's script is no good.
    """
    camera = config.camera
    size = (camera.width, camera.height)
    if camera.source == "picamera":
        return Picamera(size=size, fps=camera.fps)
    if camera.source == "scene":
        return SceneCamera(
            Scene.load(Path(camera.path)),
            size=size,
            fps=camera.fps,
            clock=clock,
            pace=camera.pace,
            loop=camera.loop,
        )
    return RecordedCamera(
        camera.path, size=size, clock=clock, pace=camera.pace, loop=camera.loop, fps=camera.fps
    )
