"""`picketctl init` and `node add`: a fleet is made, and who may join it."""

from __future__ import annotations

import argparse
import re
import secrets
from pathlib import Path

from appliance.controller.arguments import Commands, hours, reference, whole
from appliance.controller.fleet import Fleet, Settings
from appliance.controller.joining import token_hash
from appliance.controller.output import Output, when
from appliance.controller.workplace import now, now_ms, open_store, workplace
from appliance.errors import CardError
from appliance.link.file import replace
from appliance.wire import NAME_MAX_CHARS

_CONTROLLER, _JOIN = "tls+tcp://127.0.0.1:7441", "tls+tcp://127.0.0.1:7442"
_TOKEN_BYTES = 32


def add(commands: Commands) -> None:
    """Declare the commands."""
    sub = commands.add(
        "init", init, "make a fleet: its keys, certificates and store", "FLEET/ --name harbour",
        more="Safe to repeat; a fleet that is there is never changed.", fleet=False,
    )  # fmt: skip
    sub.add_argument("folder", type=Path, metavar="FLEET/", help="new or empty")
    sub.add_argument("--name", type=reference, help="of the fleet (default: that of the folder)")
    sub.add_argument(
        "--controller",
        action="append",
        metavar="URL",
        help=f"address that nodes dial; several for fail-over (default {_CONTROLLER})",
    )
    sub.add_argument("--join", default=_JOIN, metavar="URL", help=f"join port (default {_JOIN})")
    sub.add_argument(
        "--authority", action="append", type=reference, metavar="NAME",
        help="a list authority; several for --signatures 2 (default: authority)",
    )  # fmt: skip
    sub.add_argument(
        "--signatures", type=whole(1, 8), default=1, help="that a list must have (default 1)"
    )
    sub.add_argument(
        "--store", default="", metavar="URL",
        help="postgresql://USER@HOST/NAME (default: fleet.db in the folder)",
    )  # fmt: skip
    group = commands.group("node", "make nodes of the fleet")
    sub = group.add(
        "add", node_add, "write what a new node needs: node.toml and a one-time join.toml",
        "cam-017 --out cam-017/", more="Until the node has joined it may be repeated: the newest"
        " join.toml is the one that counts.",
    )  # fmt: skip
    sub.add_argument("node", type=reference, metavar="NAME")
    sub.add_argument("--out", type=Path, metavar="FOLDER/", help="default: ./NAME/")
    sub.add_argument(
        "--hours", type=hours, default=72.0, help="for which the token is good (default 72)"
    )
    sub.add_argument(
        "--again",
        action="store_true",
        help="the node has joined before: a new card, or its certificate ran out; what it had is"
        " revoked",
    )


def init(arguments: argparse.Namespace) -> int:
    """Make a fleet."""
    folder: Path = arguments.folder
    fallback = re.sub(r"[^A-Za-z0-9._:@-]", "-", folder.resolve().name)[:NAME_MAX_CHARS]
    settings = Settings(
        name=arguments.name or fallback or "fleet",
        signatures=arguments.signatures,
        store=arguments.store,
        controllers=tuple(arguments.controller or [_CONTROLLER]),
        join=arguments.join,
    )
    there = (folder / "fleet.toml").exists()
    names = tuple(arguments.authority or ("authority",))
    fleet = Fleet.init(folder, settings, authorities=names, now=now())
    with open_store(fleet):
        pass
    text = f"{folder}: fleet {fleet.settings.name} {'is there already' if there else 'made'}"
    if not there:
        keys = ", ".join(f"authorities/{name}.key" for name in names)
        text += f"\ntake {keys} away and keep offline: whoever has it can put a face on a list"
    Output(json=arguments.json).show({"fleet": fleet.settings, "made": not there}, text)
    return 0


def node_add(arguments: argparse.Namespace) -> int:
    """Invite a node."""
    node, folder = arguments.node, arguments.out or Path(arguments.node)
    token, at_ms = secrets.token_bytes(_TOKEN_BYTES), now_ms()
    expires_ms = at_ms + round(arguments.hours * 3_600_000)
    with workplace(arguments.fleet) as (fleet, store):
        config = fleet.node_toml(node).encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise CardError(f"{folder}: cannot be made: {e.strerror}") from e
        row = store.nodes.get(node)
        if arguments.again and row is not None and row.serials:
            fleet.revoke(row.serials, now())
        # The store first: a join.toml that nobody knows would be worse than none.
        store.nodes.invite(
            node,
            token_hash=token_hash(token),
            expires_ms=expires_ms,
            now_ms=at_ms,
            again=arguments.again,
        )
        if not (folder / "node.toml").exists():  # it may have been edited since
            replace(folder / "node.toml", config, mode=0o644)
        replace(folder / "join.toml", fleet.join_toml(token).encode())
    written = [str(folder / name) for name in ("node.toml", "join.toml")]
    Output(json=arguments.json).show(
        {"node": node, "files": written, "token_expires_ms": expires_ms},
        f"{node}: wrote {' and '.join(written)}; the token is good until {when(expires_ms)}\n"
        f"on the node: picket join --config {written[0]}",
    )
    return 0
