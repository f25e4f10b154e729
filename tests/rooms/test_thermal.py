from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.system.thermal import Thermal, read


def write(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pi(root: Path, *, millidegrees: str = "51121", throttled: str = "0") -> Path:
    """What a Pi 4 has below /sys."""
    write(root, "class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(root, "class/thermal/thermal_zone0/temp", f"{millidegrees}\n")
    write(root, "devices/platform/soc/soc:firmware/get_throttled", f"{throttled}\n")
    return root


def test_a_pi_tells_its_temperature(tmp_path: Path) -> None:
    assert read(pi(tmp_path)) == Thermal(celsius=51.121)


@pytest.mark.parametrize(
    ("bits", "seen"),
    [
        ("1", (False, True, False)),
        ("2", (True, False, False)),
        ("4", (True, False, False)),
        ("8", (True, False, False)),
        ("50000", (False, False, True)),
        ("50005", (True, True, True)),
        ("e0000", (False, False, False)),
    ],
)
def test_the_firmwares_bits_are_told_apart(
    tmp_path: Path, bits: str, seen: tuple[bool, bool, bool]
) -> None:
    thermal = read(pi(tmp_path, throttled=bits))
    assert (thermal.throttled, thermal.under_voltage, thermal.was_under_voltage) == seen


def test_a_pi_5_has_the_firmware_at_another_place(tmp_path: Path) -> None:
    write(tmp_path, "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "4\n")
    assert read(tmp_path).throttled


def test_a_zone_that_is_not_the_chips_is_left_out(tmp_path: Path) -> None:
    pi(tmp_path)
    write(tmp_path, "class/thermal/thermal_zone1/type", "iwlwifi_1\n")
    write(tmp_path, "class/thermal/thermal_zone1/temp", "90000\n")
    assert read(tmp_path).celsius == 51.121


def test_without_sensors_nothing_is_known_and_nothing_is_wrong(tmp_path: Path) -> None:
    assert read(tmp_path) == Thermal()


@given(temp=st.binary(max_size=20), bits=st.binary(max_size=20))
def test_rubbish_in_a_sensor_tells_nothing(
    tmp_path_factory: pytest.TempPathFactory, temp: bytes, bits: bytes
) -> None:
    root = pi(tmp_path_factory.mktemp("sys"))
    write(root, "class/thermal/thermal_zone0/temp", temp)
    write(root, "devices/platform/soc/soc:firmware/get_throttled", bits)
    read(root)
