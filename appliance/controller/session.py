"""One boot of one node, as the controller remembers it; lost at a restart, and said again then."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from appliance.wire import Hello, Poll

_BOOTS_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Parked:
    """A poll that waits for its answer.

    Attributes:
        reply_to: return address.
        until_ns: CLOCK_BOOTTIME at which it is answered at the latest.
    """

    reply_to: bytes
    poll: Poll
    until_ns: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What a list was granted for; other terms are worth another grant."""

    list_id: str
    version: int
    until_ms: int
    lease_s: int


@dataclass(slots=True)
class Session:
    """What was said to one boot, and what it said.

    Attributes:
        former: boots of this node that were before; one that comes back is a second machine.
        granted: terms of the last grant.
        unsettled: that grant was sent, and the node has not said yet what it made of it.
        renew_ns: when the grant is half used up; None if it lasts until the deployment's end.
        retry_ns: until then neither that list nor the same ending is said again.
        wiped: the hello that a wipe was sent to: it is done when another hello has come, with the
            new key of a node that has wiped or was started again. No poll proves as much.
    """

    hello: Hello
    former: deque[bytes] = field(default_factory=lambda: deque(maxlen=_BOOTS_REMEMBERED))
    granted: Terms | None = None
    unsettled: bool = False
    renew_ns: int | None = None
    retry_ns: int = 0
    wiped: Hello | None = None
    parked: Parked | None = None

    def begin(self, hello: Hello) -> None:
        """A hello: of the same boot with another key, or of another boot."""
        if hello.boot != self.hello.boot:
            self.former.append(self.hello.boot)
        self.hello = hello
        self.granted = None
        self.unsettled = False
        self.renew_ns = None
        self.retry_ns = 0
        self.parked = None
