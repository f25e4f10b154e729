"""The READMEs say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.indicator.patterns import table_markdown

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / folder / "README.md" for folder in (".", "image-build", "models_tflite")]
each = pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.relative_to(ROOT)))


def test_the_table_of_leds_is_the_codes_own() -> None:
    assert table_markdown() in (ROOT / "README.md").read_text(encoding="utf-8")


@each
def test_every_link_leads_to_a_file(readme: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8"))
    assert links or readme.parent != ROOT
    assert [
        link
        for link in links
        if not link.startswith("http") and not (readme.parent / link).exists()
    ] == []


@each
def test_every_target_that_is_named_exists(readme: Path) -> None:
    makefiles = [ROOT / "Makefile", readme.parent / "Makefile"]
    told = "\n".join(path.read_text(encoding="utf-8") for path in makefiles if path.exists())
    named = re.findall(
        r"(?:^|`|    )(?:sudo )?make ([a-z][a-z-]+)(?=[\s`])",
        readme.read_text("utf-8"),
        re.MULTILINE,
    )
    assert named or readme.parent != ROOT
    assert [t for t in named if not re.search(rf"^{t}:", told, re.MULTILINE)] == []


@each
def test_every_file_of_a_table_is_there(readme: Path) -> None:
    """What a first column names: a file that gets another name gets it there, too."""
    rows = re.findall(
        r"^\| ((?:`[a-z_]+(?:\.[a-z]+|/)`(?:, )?)+) \|", readme.read_text("utf-8"), re.MULTILINE
    )
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert [name for name in names if not (readme.parent / name).exists()] == []
