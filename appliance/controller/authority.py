"""What a list authority does: photographs become a list, a list gets its signature.

1. open_enroller   the models that nodes use, and the gate that photographs must pass
2. assess          each photograph: a template, or the reason why not
3. build_list      LIST.bundle (unsigned), LIST.key (secret), LIST.report.json
4. sign_list       an authority's signature, with its offline key

`picketctl list build` and `list sign` are these steps; `picket enrol` is all of them at once, and
refuses the whole list for one photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from appliance import config
from appliance.accelerator.manifest import SHIPPED, Manifest, ModelFile
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.controller.arguments import FLOOR
from appliance.controller.enrolment import Enrolled, Enroller, Photo, gather
from appliance.controller.report import REPORT_SUFFIX, Outcome, Report
from appliance.controller.workplace import now_ms
from appliance.errors import CardError, IdentityError, ModelError, PhotoError
from appliance.link.file import replace
from appliance.types import FalseMatch
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.occlusion import Teller
from appliance.vision.quality import QualityGate
from appliance.watchlist.build import Facts, Progress, Templates
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.calibration import threshold_for
from appliance.watchlist.files import KEY_SUFFIX, create, new_key, sign_file, write_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `picket enrol` is asked for.

    Attributes:
        photos: files, or folders as enrolment.gather takes them.
        out: LIST, or LIST.bundle.
        subject: one reference for all photographs, None names each after its file or folder.
        key: the authority's signing key; made if it is missing.
        fleet, list_id, deployment, legal_basis, officer: see bundle.Header.
        version: None for the seconds since 1970, so that later is newer.
        hours: from now until it expires.
        false_alerts: tolerable, per passer-by who is not on the list.
        accept_partial: see Enroller.
    """

    photos: Sequence[Path]
    out: Path
    subject: str | None
    key: Path
    fleet: str
    list_id: str
    version: int | None
    deployment: str
    legal_basis: str
    officer: str
    hours: float
    false_alerts: float
    accept_partial: bool = False

    def facts(self, now_ms: int) -> Facts:
        """What the header is to say."""
        return Facts(
            list_id=self.list_id,
            version=self.version or now_ms // 1000,
            fleet=self.fleet,
            created_utc_ms=now_ms,
            not_before_utc_ms=now_ms,
            expires_utc_ms=now_ms + round(self.hours * 3_600_000),
            deployment=self.deployment,
            legal_basis=self.legal_basis,
            officer=self.officer,
            target_fpir=self.false_alerts,
            threshold_floor=FLOOR,
        )


@dataclass(frozen=True, slots=True)
class Scaled:
    """What makes the templates of a column, and what its cosines mean."""

    model: str
    table: FalseMatch


@contextmanager
def open_enroller(
    models: Path | None, *, threads: int, accept_partial: bool = False
) -> Iterator[tuple[Enroller, Mapping[str, Scaled]]]:
    """The models, loaded: the same as nodes use by default; and what their columns are made by.

    Args:
        models: folder with manifest.toml, None for the one that came with this installation.
        threads: CPU threads per model.
        accept_partial: see Enroller.

    Raises:
        ModelError: missing, another file than the manifest's, or of the wrong kind.
        AcceleratorError: nothing that can run them.
    """
    names, bounds, quality = config.Models(), config.Detection(), config.Quality()
    manifest = Manifest.load(models or SHIPPED)
    bare = manifest.model(names.embedder)
    hidden = manifest.model(names.hidden) if names.hidden else None
    with ExitStack() as stack:

        def load(model: ModelFile) -> TfliteAccelerator:
            return stack.enter_context(TfliteAccelerator(model, threads=threads))

        yield (
            Enroller(
                detector=FaceDetector(
                    load(manifest.model(names.detector)),
                    min_score=bounds.min_score,
                    max_faces=bounds.max_faces,
                ),
                embedder=FaceEmbedder(load(bare)),
                hidden=FaceEmbedder(load(hidden)) if hidden else None,
                teller=Teller(load(manifest.model(names.occlusion))) if names.occlusion else None,
                accept_partial=accept_partial,
                gate=QualityGate(
                    min_eye_distance_px=quality.min_eye_distance_px,
                    min_sharpness=quality.min_sharpness,
                    min_light=quality.min_light,
                    max_light=quality.max_light,
                    max_turn=quality.max_turn,
                ),
            ),
            _scaled(bare, hidden),
        )


def _scaled(bare: ModelFile, hidden: ModelFile | None) -> dict[str, Scaled]:
    if bare.false_match is None:
        raise ModelError(f"{bare.spec.name}: its false matches were never measured")
    columns = {WHOLE: Scaled(bare.spec.id, bare.false_match)}
    if hidden is not None:
        columns |= {name: Scaled(hidden.spec.id, table) for name, table in hidden.columns.items()}
    return columns


def assess(
    enroller: Enroller, photos: Iterable[Photo], *, progress: Callable[[], object] | None = None
) -> tuple[list[Enrolled], list[Outcome]]:
    """Make the templates of photographs, and say what became of each.

    Args:
        enroller: see `open_enroller`.
        photos: see enrolment.gather.
        progress: called after each.
    """
    enrolled: list[Enrolled] = []
    outcomes: list[Outcome] = []
    for photo in photos:
        try:
            one = enroller.enrol(photo)
        except PhotoError as e:
            reason = str(e).removeprefix(f"{photo.path}: ")
            outcomes.append(Outcome(photo.subject, str(photo.path), reason))
        else:
            enrolled.append(one)
            outcomes.append(Outcome(photo.subject, str(photo.path), quality=one.quality))
        if progress is not None:
            progress()
    return enrolled, outcomes


def build_list(
    out: Path,
    facts: Facts,
    enrolled: Sequence[Enrolled],
    scaled: Mapping[str, Scaled],
    report: Report,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write a list that nobody has signed yet: three files, each whole or not at all.

    Args:
        out: of LIST.bundle.
        facts: what the authority says of it.
        enrolled: its templates, at least one.
        scaled: what made them, by column; its table tells whether the rate can be promised.
        report: written beside the list.
        progress: told after each piece.

    Returns:
        Where the key is.

    Raises:
        PhotoError: there is no template of a whole face.
        ThresholdError: no threshold keeps the promised rate with so many templates.
        CardError: a file cannot be written.
    """
    if not enrolled:
        raise PhotoError("no photograph was accepted: there is no list to make")
    by_subject: dict[str, list[Enrolled]] = {}
    for one in enrolled:
        by_subject.setdefault(one.photo.subject, []).append(one)
    columns = _columns(list(by_subject.values()), scaled)
    if WHOLE not in columns:
        raise PhotoError("every photograph is of a part-hidden face: there is no list to make")
    # A column of hidden faces that cannot keep the rate is left out by the nodes, and they say so.
    threshold_for(
        scaled[WHOLE].table,
        templates=len(columns[WHOLE].vectors),
        fpir=facts.target_fpir,
        floor=facts.threshold_floor,
    )
    content_key, key_path = new_key(), out.with_suffix(KEY_SUFFIX)
    try:
        write_key(key_path, content_key)
        create(out, facts, list(by_subject), columns, content_key=content_key, progress=progress)
    except OSError as e:
        raise CardError(f"{out}: cannot be written: {e.strerror}") from e
    replace(out.with_suffix(REPORT_SUFFIX), report.as_json().encode())
    return key_path


def _columns(
    subjects: Sequence[Sequence[Enrolled]], scaled: Mapping[str, Scaled]
) -> dict[str, Templates]:
    """The templates of each column that has any, grouped by subject."""
    columns = {}
    for name, scale in scaled.items():
        rows = [[one.vectors[name] for one in each if name in one.vectors] for each in subjects]
        vectors = [vector for each in rows for vector in each]
        if vectors:
            columns[name] = Templates(scale.model, [len(each) for each in rows], np.stack(vectors))
    return columns


def sign_list(path: Path, key: Ed25519PrivateKey) -> int:
    """Add a signature; every piece is checked first. Returns how many there are now.

    Raises:
        WatchlistError: it is no list, or damaged.
        CardError: it cannot be written.
    """
    try:
        return sign_file(path, key)
    except OSError as e:
        raise CardError(f"{path}: cannot be signed: {e.strerror}") from e


def signing_key(path: Path, *, make: bool = False) -> Ed25519PrivateKey:
    """An authority's key from its PEM file.

    Args:
        path: of the file.
        make: write a new key there if it is missing.

    Raises:
        IdentityError: missing, unreadable, or not an Ed25519 private key.
    """
    if make and not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace(path, pem)
        return key
    try:
        loaded = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as e:
        raise IdentityError(f"{path}: cannot be read: {e.strerror}") from e
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"{path}: not a private key in PEM") from e
    if not isinstance(loaded, Ed25519PrivateKey):
        raise IdentityError(f"{path}: not an Ed25519 key, which authorities sign with")
    return loaded


def enrol(order: Order, say: Callable[[str], object]) -> None:
    """Photographs to a signed list; one that is refused refuses the whole.

    Args:
        order: what is asked for.
        say: told what was done, a line each.

    Raises:
        PhotoError: names the photograph and the reason.
    """
    bundle, facts = bundle_path(order.out), order.facts(now_ms())
    key = signing_key(order.key, make=True)
    with open_enroller(None, threads=2, accept_partial=order.accept_partial) as (enroller, scaled):
        enrolled = [enroller.enrol(photo) for photo in gather(order.photos, order.subject)]
        outcomes = [Outcome(e.photo.subject, str(e.photo.path), "", e.quality) for e in enrolled]
        key_path = build_list(bundle, facts, enrolled, scaled, Report(outcomes, {}))
    sign_list(bundle, key)
    subjects = len({one.photo.subject for one in enrolled})
    say(f"{bundle}: {subjects} subjects, {len(enrolled)} templates, version {facts.version}")
    say(f"{key_path}: its key, for the controller alone")
    say(f"signed by {key.public_key().public_bytes_raw().hex()}")


def bundle_path(out: Path) -> Path:
    """LIST.bundle for LIST or LIST.bundle."""
    return out if out.suffix == ".bundle" else out.with_name(f"{out.name}.bundle")
