"""What models_tflite/manifest.toml says of each model file, and the proof that a file is that one.

Enters: a folder with manifest.toml. Leaves: ModelFiles, which hand out a file's bytes only after
their SHA-256 was compared. Nothing here runs a model or decodes its outputs.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, overload

import msgspec
from msgspec import Meta, Struct

from appliance.errors import ModelError
from appliance.types import FalseMatch, ModelSpec, TensorSpec

MANIFEST = "manifest.toml"
SHIPPED = Path(__file__).resolve().parents[2] / "models_tflite"
"""Beside the package, in a checkout as in an installation."""
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Ours have 3 MB at most; what is longer is not read to its end."""

_ID_HEX_DIGITS = 12
_IMAGE_RANK = 4

_Line = Annotated[str, Meta(min_length=1, max_length=1000)]
_Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_ModelName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,51}\Z")]
"""With @ and 12 digits it is still a wire.Name."""
_Inside = Annotated[str, Meta(pattern=r"\A(\w[\w.-]*/)*\w[\w.-]*\Z", max_length=200)]
"""A path that cannot leave its folder: no component is empty, absolute or begins with a dot."""
_Column = Annotated[str, Meta(pattern=r"\A[a-z][a-z-]{0,23}\Z")]
_Cosine = Annotated[float, Meta(ge=-1.0, le=1.0)]
_Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
_Positive = Annotated[float, Meta(gt=0.0, le=1e6)]


class _Tensor(Struct, frozen=True, forbid_unknown_fields=True):
    name: _Line
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=8192)], ...], Meta(min_length=1, max_length=4)
    ]
    dtype: Literal["int8", "uint8"]
    scale: _Positive
    zero_point: Annotated[int, Meta(ge=-128, le=255)]


class _Golden(Struct, frozen=True, forbid_unknown_fields=True):
    file: _Inside
    sha256: _Sha256
    min_cosine: _Cosine


class _Coral(Struct, frozen=True, forbid_unknown_fields=True):
    file: _Inside
    sha256: _Sha256
    min_cosine: _Cosine | None = None


class _Hailo(Struct, frozen=True, forbid_unknown_fields=True):
    file: _Inside
    sha256: _Sha256
    architecture: Literal["hailo8", "hailo8l"]
    outputs: Annotated[tuple[_Line, ...], Meta(min_length=1, max_length=16)]
    min_cosine: _Cosine | None = None


class _FalseMatch(Struct, frozen=True, forbid_unknown_fields=True):
    similarity: Annotated[tuple[_Cosine, ...], Meta(min_length=2, max_length=10_000)]
    rate: tuple[_Rate, ...]
    tail_similarity: _Cosine
    tail_rate: Annotated[float, Meta(gt=0.0, le=1.0)]
    tail_slope: _Positive
    probes: Annotated[int, Meta(ge=1)]
    comparisons: Annotated[int, Meta(ge=1)]
    source: _Line
    tail_slope_error: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0


class _Model(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: _ModelName
    role: Literal["detector", "embedder", "occlusion"]
    file: _Inside
    sha256: _Sha256
    licence: _Line
    origin: _Line
    card: _Inside
    calibration: _Line
    pixel_mean: Annotated[float, Meta(ge=-255.0, le=255.0)]
    pixel_std: _Positive
    input: _Tensor
    outputs: Annotated[tuple[_Tensor, ...], Meta(min_length=1, max_length=16)]
    golden: _Golden
    coral: _Coral | None = None
    hailo: _Hailo | None = None
    false_match: _FalseMatch | None = None
    columns: Annotated[dict[_Column, _FalseMatch], Meta(max_length=8)] = {}


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[tuple[_Model, ...], Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class Golden:
    """Stored inputs of a model and the outputs that they must give on every device.

    Attributes:
        path: npz with `input` (n, h, w, c) and `output_0` ... (n, ...), all quantised; of maps
            also `cells` (n, rows, columns) bool, where their values count.
        sha256: of that file, 64 hex digits.
        min_cosine: between the stored output and the device's, at least.
    """

    path: Path
    sha256: str
    min_cosine: float

    def verify(self) -> bytes:
        """The file's bytes.

        Raises:
            ModelError: missing, unreadable, too long, or of another SHA-256.
        """
        return _verified(self.path, self.sha256)


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """The same model, compiled by the vendor of an accelerator. models_tflite/README.md says how.

    Attributes:
        path: the file; of a Coral, a .tflite whose one operator is the compiled graph, of a
            Hailo, a .hef.
        sha256: of the file, 64 hex digits.
        min_cosine: between the golden outputs and this file's, at least.
        architecture: of a HEF: "hailo8" or "hailo8l"; else "".
        outputs: of a HEF: its names of the model's outputs, in spec.outputs' order; else empty.
    """

    path: Path
    sha256: str
    min_cosine: float
    architecture: str = ""
    outputs: tuple[str, ...] = ()

    def verify(self) -> bytes:
        """The file's bytes, as ModelFile.verify.

        Raises:
            ModelError: missing, unreadable, too long, or of another SHA-256.
        """
        return _verified(self.path, self.sha256)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model in the folder, as the manifest describes it.

    Attributes:
        spec: what the runtime needs.
        path: the .tflite file.
        licence, origin, calibration: one line each.
        card: the model card, a Markdown file.
        golden: see Golden.
        false_match: of an embedder for whole faces, for calibration; None if none was measured.
        columns: of an embedder for hidden faces the same, by the column of the watchlist.
        coral, hailo: the model for these accelerators, None if it was not compiled.
    """

    spec: ModelSpec
    path: Path
    licence: str
    origin: str
    card: Path
    calibration: str
    golden: Golden
    false_match: FalseMatch | None
    columns: Mapping[str, FalseMatch] = field(default_factory=dict)
    coral: DeviceFile | None = None
    hailo: DeviceFile | None = None

    def verify(self) -> bytes:
        """The model file's bytes: what was hashed is what gets loaded, there is no second read.

        Raises:
            ModelError: missing, unreadable, too long, or of another SHA-256.
        """
        return _verified(self.path, self.spec.sha256)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every model of one folder.

    Attributes:
        path: of manifest.toml.
        models: in the file's order; names are unique.
    """

    path: Path
    models: tuple[ModelFile, ...]

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read and check `folder`/manifest.toml; the model files themselves are not opened.

        Raises:
            ModelError: unreadable, not TOML, an unknown key, or a broken bound; names it.
        """
        path = folder / MANIFEST
        try:
            document = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Document)
            models = tuple(_model_file(entry, folder) for entry in document.model)
            _refuse_if(
                len({m.spec.name for m in models}) < len(models), "two models have the same name"
            )
        except OSError as e:
            raise ModelError(f"{path}: cannot be read: {e.strerror}") from e
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise ModelError(f"{path}: not TOML: {e}") from e
        except msgspec.ValidationError as e:
            raise ModelError(f"{path}: {e}") from e
        return cls(path, models)

    def model(self, name: str) -> ModelFile:
        """The model of that name.

        Raises:
            ModelError: there is none; lists those that there are.
        """
        for model in self.models:
            if model.spec.name == name:
                return model
        known = ", ".join(model.spec.name for model in self.models)
        raise ModelError(f"{self.path}: no model '{name}'; there are {known}")


def _verified(path: Path, sha256: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as e:
        raise ModelError(f"{path}: the model file is missing") from e
    except OSError as e:
        raise ModelError(f"{path}: cannot be read: {e.strerror}") from e
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"{path}: longer than the {MAX_FILE_BYTES} bytes that a model may have")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(f"{path}: SHA-256 is {found}, the manifest says {sha256}")
    return content


def _model_file(entry: _Model, folder: Path) -> ModelFile:
    """Check what spans several keys and turn an entry into the types of the house."""
    spec = ModelSpec(
        name=entry.name,
        role=entry.role,
        id=f"{entry.name}@{entry.sha256[:_ID_HEX_DIGITS]}",
        sha256=entry.sha256,
        pixel_mean=entry.pixel_mean,
        pixel_std=entry.pixel_std,
        input=_tensor_spec(entry.input, entry.name),
        outputs=tuple(_tensor_spec(output, entry.name) for output in entry.outputs),
    )
    shape = spec.input.shape
    _refuse_if(
        len(shape) != _IMAGE_RANK or (shape[0], shape[-1]) != (1, 3),
        f"{entry.name}: input.shape is {list(shape)}, must be [1, height, width, 3]",
    )
    return ModelFile(
        spec=spec,
        path=folder / entry.file,
        licence=entry.licence,
        origin=entry.origin,
        card=folder / entry.card,
        calibration=entry.calibration,
        golden=Golden(
            path=folder / entry.golden.file,
            sha256=entry.golden.sha256,
            min_cosine=entry.golden.min_cosine,
        ),
        false_match=_false_match(entry, entry.false_match, "false_match"),
        columns={
            name: _false_match(entry, table, f"columns.{name}")
            for name, table in entry.columns.items()
        },
        coral=_coral(entry, folder),
        hailo=_hailo(entry, folder),
    )


def _coral(entry: _Model, folder: Path) -> DeviceFile | None:
    told = entry.coral
    if told is None:
        return None
    min_cosine = entry.golden.min_cosine if told.min_cosine is None else told.min_cosine
    return DeviceFile(folder / told.file, told.sha256, min_cosine)


def _hailo(entry: _Model, folder: Path) -> DeviceFile | None:
    told = entry.hailo
    if told is None:
        return None
    _refuse_if(
        len(told.outputs) != len(entry.outputs) or len(set(told.outputs)) < len(told.outputs),
        f"{entry.name}: hailo.outputs: {len(set(told.outputs))} names"
        f" for {len(entry.outputs)} outputs",
    )
    return DeviceFile(
        path=folder / told.file,
        sha256=told.sha256,
        min_cosine=entry.golden.min_cosine if told.min_cosine is None else told.min_cosine,
        architecture=told.architecture,
        outputs=told.outputs,
    )


def _tensor_spec(tensor: _Tensor, model: str) -> TensorSpec:
    low, high = (-128, 127) if tensor.dtype == "int8" else (0, 255)
    _refuse_if(
        not low <= tensor.zero_point <= high,
        f"{model}: {tensor.name}: zero_point {tensor.zero_point} is no {tensor.dtype}",
    )
    return TensorSpec(tensor.name, tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point)


@overload
def _false_match(entry: _Model, table: _FalseMatch, key: str) -> FalseMatch: ...


@overload
def _false_match(entry: _Model, table: _FalseMatch | None, key: str) -> FalseMatch | None: ...


def _false_match(entry: _Model, table: _FalseMatch | None, key: str) -> FalseMatch | None:
    if table is None:
        return None
    where = f"{entry.name}: {key}"
    _refuse_if(entry.role != "embedder", f"{where}: belongs to an embedder, not to a {entry.role}")
    _refuse_if(
        len(table.rate) != len(table.similarity),
        f"{where}: {len(table.rate)} rates for {len(table.similarity)} similarities",
    )
    _refuse_if(
        any(low >= high for low, high in pairwise(table.similarity)),
        f"{where}.similarity: must increase",
    )
    _refuse_if(any(low < high for low, high in pairwise(table.rate)), f"{where}.rate: must fall")
    return FalseMatch(**msgspec.structs.asdict(table))


def _refuse_if(broken: bool, what: str) -> None:  # noqa: FBT001 - the condition is its only use
    """Raised as what msgspec raises, so that one place prefixes the manifest's path."""
    if broken:
        raise msgspec.ValidationError(what)
