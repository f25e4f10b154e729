"""`picket` with its erasure switched off, to prove that the canary test would notice.

numpy's zeros, from which every buffer of the node is made, gives arrays that cannot be overwritten
with one value: `fill` does nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_zeros = np.zeros


class Unforgetting(np.ndarray):
    """An array whose fill is ignored."""

    def fill(self, value: Any) -> None:
        """Do nothing."""


def unforgetting_zeros(*args: Any, **kwargs: Any) -> Any:
    """Like numpy.zeros."""
    return _zeros(*args, **kwargs).view(Unforgetting)


if __name__ == "__main__":
    setattr(np, "zeros", unforgetting_zeros)  # noqa: B010 - mypy knows it as final
    from appliance.cli import main

    sys.exit(main())
