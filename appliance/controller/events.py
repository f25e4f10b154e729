"""What happens at the controller, as flat records: one line each, for people or as JSON.

event        tells
listening    url, join_url
joined       node
denied       node, reason, count: at the join port; told at most once a second
renewed      node: has a new certificate
hello        node, boot, model
quarantined  node, boot, reason: gets no list until `picketctl confirm`
pushed       node, boot, list_id, list_version, lease_s
accepted     node, boot, list_id, list_version
refused      node, boot, list_id, list_version, reason
withdrawn    node, boot, list_id
wiping       node, boot: was told to
wiped        node, boot: has done so
ended        deployment: its planned time is over
update       node, version, step (of rollout.py), reason
paused       rollout, reason: too many nodes have failed
missing      reason: the update is not offered, because its file is not here
alert        every field of the tuple, nbytes (of the tuple), received_boot_ns
unreadable   node, boot, sequence, reason: stored, and does not open
duplicate    node, boot, sequence
conflict     node, boot, sequence: other bytes with this number are stored
gap          node, boot, first, last: alerts that were numbered and never came
health       every field of the message, received_boot_ns
hostile      reason, count: not a question, or not the asker's; told at most once a second
summary      nodes, alerts, unreadable, gaps, hostile, refused (connections)
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from appliance.wire import Alert, Health, printable

RAREST = 1e-6

Event = dict[str, object]
"""Begins with "event"; values are JSON's, bytes as hexadecimal text."""

Notify = Callable[[Event], None]
"""Told of each event, in order, by whichever thread it happened on."""


def event(kind: str, **fields: object) -> Event:
    """A record of the kind, its bytes as hexadecimal text."""
    return {"event": kind} | {name: _plain(field) for name, field in fields.items()}


def event_of(kind: str, message: Alert | Health, **more: object) -> Event:
    """A record with every field of a message."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return event(kind, **fields, **more)


def as_json(record: Event) -> str:
    """One line of JSON."""
    return msgspec.json.encode(record).decode()


def as_text(record: Event) -> str:
    """One line for people."""
    told = {name: field for name, field in record.items() if name != "event"}
    shown = _TEXTS.get(str(record["event"]), _pairs)(told)
    return printable(f"{record['event']:<11} {shown}")


def _plain(field: object) -> object:
    return field.hex() if isinstance(field, bytes) else field


def _alert(told: Event) -> str:
    rate = float(str(told["false_alert_rate"]))
    # Rarer than that was never measured: the number is an extrapolation.
    odds = f"1 stranger in {1 / rate:,.0f}" if rate >= RAREST else "hardly any stranger"
    return (
        f"{told['node']} #{told['sequence']}: {told['subject']},"
        f" similarity {told['similarity']:.3f} ({odds} scores this),"
        f" {told['frames_fused']} frames fused, {told['nbytes']} bytes"
    )


def _health(told: Event) -> str:
    return (
        f"{told['node']}: {told['state']}, {told['fps']:.1f} frames/s, faces"
        f" {told['faces_seen']} = {told['faces_erased']} erased + {told['faces_alerted']} alerted"
        f" + {told['faces_held']} held, {told['outbox']} alerts waiting,"
        f" {told['rss_mib']:.0f} MiB"
    )


def _pairs(told: Event) -> str:
    return " ".join(f"{name}={field}" for name, field in told.items())


_TEXTS: dict[str, Callable[[Event], str]] = {"alert": _alert, "health": _health}
