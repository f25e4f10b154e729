"""Threads that die loudly, and the one-place slot between two of them.

What a thread does is a `step` of its room; here is only how it is called again and again, how
it ends, and how its unexpected death ends the process. systemd starts the process again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Latest(Generic[T]):
    """A slot for one item: the reader always gets the newest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None

    def put(self, item: T) -> T | None:
        """Put an item in, at once.

        Returns:
            The item that it displaced, None if the slot was empty; the caller erases it.
        """
        with self._changed:
            displaced, self._item = self._item, item
            self._changed.notify_all()
            return displaced

    def put_wait(self, item: T, timeout_s: float) -> bool:
        """Put an item in as soon as the slot is empty: for sources that may not drop.

        Returns:
            False if the slot was not empty within timeout_s; nothing was put.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._item is None, timeout_s):
                return False
            self._item = item
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float) -> T | None:
        """Take the item out, or None if none came within timeout_s."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None, timeout_s)
            item, self._item = self._item, None
            self._changed.notify_all()
            return item


class Worker:
    """A thread that calls `step` until told to stop; its failure stops everybody.

    A step catches only the errors that it expects; whatever else it raises is kept in `failure`
    and sets `stop`. Every wait inside a step has a time-out, so that `stop` is seen.

    Args:
        name: of the thread.
        step: called again and again.
        stop: shared by all workers of a process.

    Attributes:
        beats: steps done; a watchdog is fed only while it moves.
        failure: what `step` raised.
        failed_ns: CLOCK_MONOTONIC of the failure: the earliest of several is the cause.
    """

    def __init__(self, name: str, step: Callable[[], None], stop: threading.Event) -> None:
        self.name = name
        self.beats = 0
        self.failure: BaseException | None = None
        self.failed_ns = 0
        self._step, self._stop = step, stop
        # A daemon: a vendor's call that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Whether the thread has ended, waiting up to timeout_s for it."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
                self.beats += 1
        except BaseException as e:  # noqa: BLE001 - the one catch-all: Crew.run raises it again
            self.failed_ns = time.monotonic_ns()
            self.failure = e
            self._stop.set()


class Crew:
    """All workers of a process: they start together and end together.

    Args:
        workers: started in this order, joined in the reverse of it.
        stop: as given to every worker; set by a signal, by a failure or by whoever is done.
        join_s: how long one worker may take to end, above every time-out inside its step.
    """

    def __init__(
        self, workers: Sequence[Worker], stop: threading.Event, *, join_s: float = 10.0
    ) -> None:
        self._workers, self._stop, self._join_s = tuple(workers), stop, join_s

    def run(self) -> None:
        """Start all, wait for `stop`, join all.

        Raises:
            BaseException: the earliest failure of a worker, noted with its thread's name.
            RuntimeError: a worker did not end; names the threads.
        """
        for worker in self._workers:
            worker.start()
        self._stop.wait()
        stuck = [w.name for w in reversed(self._workers) if not w.join(self._join_s)]
        failed = [w for w in self._workers if w.failure is not None]
        for worker in sorted(failed, key=lambda w: w.failed_ns):
            log.error(
                "thread %s: %s: %s", worker.name, type(worker.failure).__name__, worker.failure
            )
        if failed:
            first = min(failed, key=lambda w: w.failed_ns)
            failure = first.failure
            if failure is not None:
                failure.add_note(f"in thread {first.name}")
                raise failure
        if stuck:
            raise RuntimeError(f"thread {', '.join(stuck)}: did not end within {self._join_s} s")
