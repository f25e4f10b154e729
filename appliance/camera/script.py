"""The script of a scene: who walks by when, and where the face is in each photograph.

Bytes of a TOML file in, a checked Script out; nothing is drawn here.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from appliance.errors import ConfigError

T = TypeVar("T")

Seconds = Annotated[float, Meta(ge=0.0, le=3600.0)]
Place = Annotated[float, Meta(ge=-1.0, le=2.0)]
FacePx = Annotated[float, Meta(ge=8.0, le=600.0)]
Gain = Annotated[float, Meta(ge=0.2, le=2.0)]
Point = tuple[float, float]
Cover = Literal["", "scarf", "mask", "sunglasses"]


class Walker(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One appearance of one person.

    Attributes:
        who: the subject reference that the watchlist has for this person, "" for a stranger.
        photo: a key of the anatomy file; relative to that file.
        enters_s, leaves_s: when, from the beginning of the scene.
        from_x, to_x: centre of the face as a fraction of the frame's width; may be outside.
        from_px, to_px: width of the face at 1280 pixels of frame width, when entering and
            when leaving.
        y: centre of the face as a fraction of the frame's height, when leaving.
        blur_px: length of the horizontal motion blur at 1280 pixels of frame width.
        light: brightness when entering and when leaving; 1 is as photographed.
        sway: degrees by which the body rocks with each step.
        cover: hides the face from the nose down, or the eyes.
    """

    photo: str
    enters_s: Seconds
    leaves_s: Seconds
    from_x: Place
    to_x: Place
    from_px: FacePx
    to_px: FacePx
    who: str = ""
    y: Place = 0.4
    blur_px: Annotated[float, Meta(ge=0.0, le=60.0)] = 0.0
    light: tuple[Gain, Gain] = (1.0, 1.0)
    sway: Annotated[float, Meta(ge=0.0, le=15.0)] = 1.5
    cover: Cover = ""


class Anatomy(Struct, frozen=True, forbid_unknown_fields=True):
    """Where things are in a photograph, in its pixels, measured by eye.

    Attributes:
        face: x1 y1 x2 y2, forehead to chin, cheek to cheek.
        landmarks: left eye, right eye, nose tip, left and right mouth corner, as seen.
        outline: polygon around the person; beyond the photograph's border it is continued by
            reflection.
        mend: polygon of something in front of the person that is painted over from its
            surroundings; empty if there is nothing.
    """

    face: tuple[float, float, float, float]
    landmarks: Annotated[tuple[Point, ...], Meta(min_length=5, max_length=5)]
    outline: Annotated[tuple[Point, ...], Meta(min_length=3)]
    mend: tuple[Point, ...] = ()


class Script(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A scene.

    Attributes:
        seed: of the background and of everything else that is random.
        seconds: how long it lasts.
        background: "street" is drawn by camera/street.py.
        anatomy: TOML file with one Anatomy per photograph, relative to the script.
        walker: in any order.
    """

    seconds: Annotated[float, Meta(gt=0.0, le=3600.0)]
    anatomy: str
    walker: tuple[Walker, ...]
    seed: Annotated[int, Meta(ge=0)] = 1
    background: Literal["street"] = "street"


def load_script(path: Path) -> tuple[Script, dict[str, Anatomy]]:
    """The script and the anatomies of the photographs in it, by the `photo` of its walkers.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a broken bound; names path and key.
    """
    script = _read(path, Script)
    anatomy_path = path.parent / script.anatomy
    anatomies = _read(anatomy_path, dict[str, Anatomy])
    for place, walker in enumerate(script.walker):
        where = f"{path}: walker[{place}]"
        if not walker.enters_s < walker.leaves_s <= script.seconds:
            raise ConfigError(
                f"{where}.leaves_s: {walker.leaves_s} is not between enters_s ="
                f" {walker.enters_s} and seconds = {script.seconds}"
            )
        if walker.photo not in anatomies:
            raise ConfigError(f"{where}.photo: '{walker.photo}' is not in {anatomy_path}")
    return script, anatomies


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not TOML: {e}") from e
    except msgspec.ValidationError as e:  # ends in "at `$.walker[2].y`"
        raise ConfigError(f"{path}: {e}") from e
