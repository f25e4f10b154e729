"""How grave a line is, said as systemd's journal reads it, and only to that."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from appliance.system import journal


def test_a_terminal_sees_the_line_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert journal.graded("all is well", 6) == "all is well"


@pytest.mark.parametrize(("level", "priority"), [
    (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6),
    (logging.DEBUG, 7),
])  # fmt: skip
def test_the_journal_is_told_before_every_line(
    monkeypatch: pytest.MonkeyPatch, level: int, priority: int
) -> None:
    monkeypatch.setattr(journal, "is_journal", lambda: True)
    record = logging.LogRecord("watch", level, "", 0, "one\ntwo", (), None)
    made = journal.Formatter("%(name)s: %(message)s").format(record)
    assert made == f"<{priority}>watch: one\n<{priority}>two"


def test_a_service_whose_stderr_is_the_journal_knows_it() -> None:
    code = (
        "import os, sys; from appliance.cli import main; s = os.fstat(2);"
        "os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}';"
        "sys.exit(main(['check-config', '--config', '/nonexistent']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("<3>picket: error: ")
