"""A stolen card, and a recording of everything that its node ever said: no template, no alert.

A real fleet and the node's real services; then the power is pulled. The thief has every file of the
node and every byte of its connections, and tries every key that is in there. What stays with the
fleet (the authority's, the controller's and the alert key) is not his.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.alerts.seal import AlertPrivateKey, open_alert
from appliance.config import load
from appliance.errors import PicketError
from appliance.services.join import join
from appliance.watchlist.bundle import key_commitment
from appliance.watchlist.files import BundleFile, read_key
from appliance.watchlist.pieces import TAG_BYTES, Sealer
from appliance.wire import Row
from tests.path.enrolled import PHOTOS, template
from tests.path.fleet_hands import Serving, picketctl, wait_for
from tests.path.other_end import WatchProcess
from tests.path.recording import Recorder

SUBJECT = "poi-nobody-may-know"
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?KEY-----\n", re.DOTALL)
SCENE = (
    'seconds = 2.0\nanatomy = "{anatomy}"\n[[walker]]\nphoto = "obama3.jpg"\nwho = "x"\n'
    "enters_s = 0.2\nleaves_s = 1.8\nfrom_x = 0.4\nto_x = 0.6\nfrom_px = 70\nto_px = 160\n"
)


@dataclass(frozen=True)
class Loot:
    """What the thief has, and what he is after.

    Attributes:
        files: of the card, by their names.
        recording: of the network.
        rows: alerts that waited on the card.
        bundle: the list as the fleet has it; only its ciphertext was ever with the node.
        content_key: what opens it; not his.
    """

    files: dict[str, bytes]
    recording: bytes
    rows: tuple[Row, ...]
    bundle: BundleFile
    content_key: bytes

    @property
    def everything(self) -> Iterator[bytes]:
        """Every byte string that he has."""
        yield from self.files.values()
        yield self.recording


@pytest.fixture(scope="module")
def loot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loot]:
    folder = tmp_path_factory.mktemp("fleet")
    fleet, card, bundle = folder / "fleet", folder / "card", folder / "list.bundle"
    photos = folder / "photos" / SUBJECT
    photos.mkdir(parents=True)
    shutil.copy(PHOTOS / "obama.jpg", photos)
    commands = (
        ("init", fleet),
        ("node", "add", "cam-1", "--out", card, "--fleet", fleet),
        ("list", "build", folder / "photos", "--out", bundle, "--fleet", fleet),
        ("list", "sign", bundle, "--key", fleet / "authorities/authority.key", "--fleet", fleet),
        (
            *("deploy", "start", "--list", bundle, "--nodes", "cam-1", "--until", "+1h"),
            *("--authority", "a", "--purpose", "b", "--location", "c", "--fleet", fleet),
        ),
    )
    for command in commands:
        done = picketctl(*command)
        assert done.returncode == 0, done.stderr
    with Serving(fleet) as serving, ExitStack() as stack:
        recorder = stack.enter_context(Recorder(serving.url))
        config = _configured(card, recorder.url, serving.join_url, folder)
        join(load(config), card / "join.toml")
        services = [
            stack.enter_context(WatchProcess(config, service=name))
            for name in ("indicator", "link", "watch")
        ]
        wait_for(lambda: any(e["event"] == "alert" for e in serving.events) or None, 90.0)
        recorder.cut()
        outbox = next((card / "link").glob("*.db"))
        log = outbox.with_name(f"{outbox.name}-wal")
        before = log.read_bytes()
        # Another alert is kept, of which the controller never hears.
        wait_for(lambda: log.read_bytes() != before or None, 60.0)
        for service in services:
            service.kill()
        recording = bytes(recorder.heard)
    (folder / "scene.toml").unlink()
    rows = _rows_in(outbox)
    files = {str(p.relative_to(card)): p.read_bytes() for p in card.rglob("*") if p.is_file()}
    with BundleFile(bundle) as opened:
        key = bytes(read_key(bundle.with_suffix(".key"), opened.header))
        yield Loot(files, recording, tuple(rows), opened, key)


def _configured(card: Path, url: str, join_url: str, folder: Path) -> Path:
    scene = folder / "scene.toml"
    scene.write_text(SCENE.format(anatomy=PHOTOS / "faces.toml"), encoding="utf-8")
    path = card / "node.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    document["link"] |= {"controllers": [url], "join": join_url, "health_s": 0.5, "poll_s": 2.0}
    document["local"] = {"run": "run"}
    document["lamps"] = {"driver": "none"}
    document["camera"] = {"source": "scene", "path": str(scene), "loop": True}
    document["decision"] = {"cooldown_s": 1.0}
    (card / "run").mkdir()
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_card_holds_the_ciphertext_and_the_key_would_open_it(loot: Loot) -> None:
    pieces = [loot.bundle.piece(n) for n in range(loot.bundle.header.pieces)]
    assert all(any(piece in file for file in loot.files.values()) for piece in pieces)
    header = loot.bundle.header
    sealer = Sealer(
        loot.content_key, list_id=header.list_id, version=header.version, pieces=header.pieces
    )
    opened = b""
    for number, piece in enumerate(pieces):
        into = bytearray(len(piece) - TAG_BYTES)
        sealer.open_into(number, piece, memoryview(into))
        opened += into
    assert SUBJECT.encode() in opened
    assert template("obama.jpg").astype("<f2").tobytes() in opened


@pytest.mark.slow
def test_no_template_and_no_subject_is_on_the_card_or_was_on_the_network(loot: Loot) -> None:
    vector = template("obama.jpg")
    needles = [vector.astype(kind).tobytes()[:24] for kind in ("<f2", "<f4")]
    for content in loot.everything:
        assert SUBJECT.encode() not in content
        assert not any(needle in content for needle in needles)


@pytest.mark.slow
def test_no_32_bytes_that_the_thief_has_are_the_content_key(loot: Loot) -> None:
    wanted = loot.bundle.header.key_sha256
    assert key_commitment(loot.content_key) == wanted
    assert not any(loot.content_key in content for content in loot.everything)
    tried = 0
    for content in loot.everything:
        texts = [content, *map(bytes.fromhex, _hexadecimals(content))]
        for text in texts:
            for at in range(len(text) - 31):
                assert key_commitment(text[at : at + 32]) != wanted
                tried += 1
    assert tried > 50_000


@pytest.mark.slow
def test_no_private_key_on_the_card_opens_an_alert(loot: Loot) -> None:
    keys = [
        load_pem_private_key(pem, None)
        for content in loot.files.values()
        for pem in re.findall(
            rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?KEY-----\n", content, re.DOTALL
        )
    ]
    assert any(isinstance(key, ec.EllipticCurvePrivateKey) for key in keys)
    (identity,) = (key for key in keys if isinstance(key, ed25519.Ed25519PrivateKey))
    assert loot.rows
    secrets = [
        key.private_bytes_raw() for key in keys if isinstance(key, ed25519.Ed25519PrivateKey)
    ]
    secrets += [
        key.private_numbers().private_value.to_bytes(32, "big")
        for key in keys
        if isinstance(key, ec.EllipticCurvePrivateKey)
    ]
    for secret in secrets:
        alert_key = AlertPrivateKey.load(secret * 3)
        for row in loot.rows:
            with pytest.raises(PicketError):
                open_alert(row, node="cam-1", watch_key=identity.public_key(), alert_key=alert_key)


def _hexadecimals(content: bytes) -> list[str]:
    """Keys are sometimes written down as hexadecimal text."""
    found = re.findall(rb"(?:[0-9a-f]{2}){32,}", content)
    return [text.decode() for text in found]


def _rows_in(outbox: Path) -> list[Row]:
    """The alerts that wait in a node's outbox."""
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as database:
        return [
            Row(boot, sequence, sealed)
            for boot, sequence, sealed in database.execute(
                "SELECT boot, sequence, sealed FROM alerts ORDER BY id"
            )
        ]
