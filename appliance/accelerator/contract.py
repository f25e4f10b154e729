"""What every accelerator checks before it touches its device."""

from __future__ import annotations

from appliance.errors import AcceleratorError
from appliance.types import ModelSpec, Tensor


def check_input(spec: ModelSpec, tensor: Tensor) -> None:
    """Refuse a tensor that is not exactly the model's input: nothing is cast or broadcast.

    Raises:
        AcceleratorError: another shape or dtype.
    """
    wanted = spec.input
    if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
        raise AcceleratorError(
            f"{spec.id}: a tensor of {tensor.dtype} {list(tensor.shape)},"
            f" the model takes {wanted.dtype} {list(wanted.shape)}"
        )
