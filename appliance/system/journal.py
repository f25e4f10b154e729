"""Lines for systemd's journal: each says how grave it is, as sd-daemon(3) wants it.

Enters: log records. Leaves: text for stderr, each line behind `<3>` for an error, and so on, where
stderr is the journal; elsewhere nothing is put before it. The ring of faults keeps what is `<3>`
and worse.
"""

from __future__ import annotations

import logging
import os
import sys

_GRAVE = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
ERROR = 3
"""LOG_ERR."""


def is_journal() -> bool:
    """Whether systemd has connected stderr to its journal, and to nothing else since then."""
    said = os.environ.get("JOURNAL_STREAM", "")
    try:
        here = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # a stderr that is no file, as in a test
        return False
    return said == f"{here.st_dev}:{here.st_ino}"


def graded(text: str, priority: int) -> str:
    """Text with its priority before every line, where stderr is the journal."""
    if not is_journal():
        return text
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


class Formatter(logging.Formatter):
    """Formats as logging does, and grades."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        priority = next((p for level, p in _GRAVE if record.levelno >= level), 7)
        return graded(super().format(record), priority)
