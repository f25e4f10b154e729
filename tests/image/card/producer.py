"""In the guest: hands the link service one row after the other, and says which it has answered for.

    PYTHONPATH=/opt/picket/site python3 producer.py NODE RATE

On the console: "answered BOOT SEQUENCE" for the last row of each report, not before the answer.
What is in a row is noise: the link service cannot tell, and the controller counts it as unreadable.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import sys
import time

from appliance.errors import LinkError
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.wire import Ack, Report, Row

_SEALED_BYTES = 1700
_MOST = 8


def main(node: str, rate: float) -> None:
    """Until it is killed."""
    boot, chance = secrets.token_bytes(16), random.Random()  # noqa: S311 - spreads waits
    numbers = itertools.count(1)
    with NngLink("ipc:///run/picket/link.ipc", redial_s=(0.05, 1.0)) as link:
        while True:
            many = chance.randint(1, _MOST)
            rows = tuple(
                Row(boot, next(numbers), secrets.token_bytes(_SEALED_BYTES)) for _ in range(many)
            )
            while True:
                with contextlib.suppress(LinkError):
                    ask(link, Report(node, rows), Ack, 15.0)
                    break
                time.sleep(0.2)
            sys.stdout.write(f"answered {boot.hex()} {rows[-1].sequence}\n")
            sys.stdout.flush()
            time.sleep(chance.expovariate(rate / many))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
