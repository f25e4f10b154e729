"""A program of ours as a child process whose output lines arrive as they are written."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from appliance.errors import PicketError

_STOP_S = 10.0


class Process:
    """Runs `python -m MODULE ARGUMENTS` and calls back for each line that it prints.

    The callbacks run on threads of this object, one per stream, and end before `stop` returns.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        on_line: Callable[[str], None],
        on_error: Callable[[str], None],
    ) -> None:
        self.module = module
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self._child.stdout, on_line), daemon=True),
            threading.Thread(target=self._read, args=(self._child.stderr, on_error), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def status(self) -> int | None:
        """Exit status, None while it runs."""
        return self._child.poll()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end.

        Returns:
            The exit status.

        Raises:
            PicketError: it still runs after timeout_s.
        """
        try:
            status = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired as e:
            raise PicketError(f"{self.module} has not ended after {timeout_s:.0f} s") from e
        for reader in self._readers:
            reader.join(_STOP_S)
        return status

    def stop(self) -> int:
        """Ask it to end, insist after ten seconds; returns the exit status."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            return self.wait(_STOP_S)
        except PicketError:
            self._child.kill()
            return self.wait(_STOP_S)

    @staticmethod
    def _read(stream: object, callback: Callable[[str], None]) -> None:
        for line in stream:  # type: ignore[attr-defined]  # Popen's streams are typed as optional
            callback(line.rstrip("\n"))
