"""`picket first-boot`: a card's picket-provision.toml becomes a node.

1. read     the file on the card's first partition; nothing else happens before all of it is good
2. write    node.toml, the network's files, join.toml: on the data partition, each whole or not
3. erase    the file on the first partition is overwritten and removed: the token is no longer
            where anybody with a card reader looks
4. join     `picket join`; in the image that is a service of its own, see picket-join.service
5. tell     picket-status.txt beside it says how far the node has come, and what to do; whether the
            data partition is encrypted (made so before this runs: picket-data.service); and whether
            SSH lets somebody in

Interrupted at any point, it is run again and goes on. A card that has no file, and whose data
partition has a node, is left as it is.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import tomli_w

from appliance import config
from appliance.errors import CardError, ConfigError, PicketError, ProvisionError
from appliance.link import membership
from appliance.link.file import erase, replace
from appliance.system import card, data, netfiles

log = logging.getLogger(__name__)

LINK_USER, GROUP = "picket-link", "picket"
_PROVISION_IT = "`picketctl provision` makes one"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie on a node.

    Attributes:
        card: the first partition, which any computer can read.
        etc: node.toml.
        system: what networkd, timesyncd and nftables read.
        ticket: join.toml, for `picket join`.
        state: of the link service: certificates, outbox.
        identity: the watch service's key, until picket-join.service takes it away.
        data: what picket-data.service says of the data partition; missing where there is none.
        faults: what picket-faults.service keeps; likewise.
    """

    card: Path
    etc: Path
    system: Path
    ticket: Path
    state: Path
    identity: Path
    data: Path
    faults: Path

    @classmethod
    def under(cls, root: Path) -> Self:
        """The image's, below a folder."""
        lib = root / "var/lib"
        return cls(
            card=root / "boot/picket",
            etc=root / "etc/picket",
            system=root / "data/system",
            ticket=lib / "picket-join/join.toml",
            state=lib / "picket-link",
            identity=lib / "picket-join/watch.key",
            data=root / "run/picket-data.json",
            faults=root / "data/faults",
        )

    @property
    def node_toml(self) -> Path:
        """The configuration of the node."""
        return self.etc / "node.toml"


def first_boot(places: Places) -> bool:
    """Steps 1 to 3, and the status.

    Args:
        places: all of them are made where they are missing, but for the card.

    Returns:
        False: there was nothing to do.

    Raises:
        ProvisionError: the file is missing, broken, used up, or for another node than this one.
        CardError: something cannot be written; run it again.
    """
    try:
        done = _first_boot(places)
    except PicketError as e:
        _tell(places, "FAULT", str(e), "put this right on this card, then switch on again")
        raise
    if done:
        _tell(places, "joining", "told who it is; asks its controller for a certificate", "")
    return done


def report(places: Places, why: str) -> bool:
    """Step 5: say what became of joining.

    Args:
        places: of the node.
        why: what `picket join` said last, "" for nothing.

    Returns:
        Whether the node has joined.
    """
    joined = membership.joined(places.state)
    if joined:
        _tell(places, "joined", "has its certificate; the token was erased", "")
    else:
        advice = "it goes on trying; check cable, address and `picketctl nodes`"
        _tell(places, "joining", why or "no answer yet", advice)
    return joined


def join_now(places: Places) -> None:
    """Step 4, where no service of its own does it, and the status.

    Raises:
        PicketError: as `picket join` raises; the status says so, and it may be run again.
    """
    from appliance.services.join import join

    if membership.joined(places.state) and not places.ticket.exists():
        return
    try:
        join(config.load(places.node_toml), places.ticket)
    except PicketError as e:
        report(places, str(e))
        raise
    report(places, "")


def lamps_on(places: Places) -> config.Lamps:
    """The lamps that a broken file still names, or an earlier one named, else the usual pins."""
    for name in (card.FILE, card.LAMPS):
        try:
            with (places.card / name).open("rb") as file:
                document = tomllib.loads(file.read(card.MAX_BYTES).decode("utf-8-sig"))
            if "lamps" in document:
                return msgspec.convert(document["lamps"], config.Lamps)
        except (OSError, ValueError) as e:  # TOML, UTF-8 and msgspec's errors are ValueErrors
            log.info("no lamps in %s: %s", name, e)
    return config.Lamps(driver="gpio")


def data_is_shut(places: Places) -> bool:
    """Whether the data partition could not be opened, which is why nothing of the node runs."""
    return bool(data.said(places.data).get("fault"))


def _first_boot(places: Places) -> bool:
    path = places.card / card.FILE
    found = _content(path)
    there = places.node_toml.exists()
    if not found.strip(b"\0"):  # erased, or the power went while it was being erased
        if there:
            erase(path, "the token")
            return False
        raise ProvisionError(f"{path}: {'empty' if path.exists() else 'missing'}: {_PROVISION_IT}")
    provision, document = card.read(found)
    if provision.taken:
        raise ProvisionError(f"{path}: join.token: was used already: {_PROVISION_IT}")
    _same_node(places, provision)
    made, text = netfiles.files(provision), _node_toml(places, document)
    for folder in (places.etc, places.system, places.ticket.parent):
        _folder(folder)
    replace(places.node_toml, text, mode=0o640)
    _give(places.node_toml, "root", GROUP)
    for name, content in made.items():
        # Read by networkd and timesyncd as users of their own; the key of the Wi-Fi is not.
        replace(places.system / name, content.encode(), mode=_mode(name))
    for name in netfiles.OPTIONAL:
        if name not in made:
            _remove(places.system / name)
    if not membership.joined(places.state):
        ticket = {"token": provision.join.token, "ca": provision.join.ca}
        replace(places.ticket, tomli_w.dumps(ticket, multiline_strings=True).encode())
        _give(places.ticket, LINK_USER, GROUP)
    _keep_lamps(places, document)
    erase(path, "the token")
    log.info("this is %s of fleet %s", provision.node.id, provision.node.fleet)
    return True


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(card.MAX_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise CardError(f"{path}: cannot be read: {e.strerror}") from e


def _same_node(places: Places, provision: card.Provision) -> None:
    """A node that has joined keeps its name: its keys and its certificate are for that."""
    if not membership.joined(places.state) or not places.node_toml.exists():
        return
    here = config.load(places.node_toml).node
    asked = provision.node
    if (here.id, here.fleet) != (asked.id, asked.fleet):
        raise ProvisionError(
            f"{card.FILE}: node.id: {asked.id} of {asked.fleet}, but this card is {here.id} of"
            f" {here.fleet}: write the image on it anew"
        )


def _mode(name: str) -> int:
    return 0o600 if name == netfiles.WIFI else 0o644


def _node_toml(places: Places, document: dict[str, Any]) -> bytes:
    """node.toml, the whole of it known to be good."""
    tables = card.node_toml(document)
    tables["node"] = {"identity": str(places.identity)} | tables["node"]
    tables["link"] = {"state": str(places.state)} | tables.get("link", {})
    text = tomli_w.dumps(tables)
    with tempfile.TemporaryDirectory(prefix="picket-") as folder:
        candidate = Path(folder) / "node.toml"
        candidate.write_text(text, encoding="utf-8")
        try:
            config.load(candidate)
        except ConfigError as e:
            raise ProvisionError(str(e).replace(str(candidate), card.FILE)) from e
    return text.encode()


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CardError(f"{path}: cannot be made: {e.strerror}") from e


def _keep_lamps(places: Places, document: dict[str, Any]) -> None:
    lamps = document.get("lamps", {})
    if lamps.keys() <= {"driver"}:
        _remove(places.card / card.LAMPS)
    else:
        text = tomli_w.dumps({"lamps": lamps})
        replace(places.card / card.LAMPS, text.encode(), mode=0o644)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise CardError(f"{path}: cannot be removed: {e.strerror}") from e


def _facts(places: Places) -> list[str]:
    """What who holds the card should know, besides how far it has come."""
    opened, lines = data.said(places.data), []
    if opened.get("encrypted"):
        lines.append(f"data: encrypted to this board ({opened['by']})")
    elif opened:
        lines.append(f"data: NOT ENCRYPTED: {opened['why']}")
    keys = places.system / netfiles.SSH
    if keys.exists():
        head = keys.read_text(encoding="ascii").partition("\n")[0].removeprefix("# ")
        lines.append(f"ssh: OPEN for the user service, {head}")
    return lines


def _give(path: Path, user: str, group: str) -> None:
    """Hand a file to a service's user; on a machine without our users it stays whose it is."""
    if os.geteuid() != 0:
        return
    try:
        shutil.chown(path, user, group)
    except LookupError as e:
        log.info("%s stays root's: %s", path, e)
    except OSError as e:
        raise CardError(f"{path}: cannot be given to {user}: {e.strerror}") from e


def _tell(places: Places, state: str, why: str, advice: str) -> None:
    """Write picket-status.txt, unless it says so already: a card wears out by writing."""
    lines = [f"state: {state}", f"why: {why}", *([f"what to do: {advice}"] if advice else [])]
    lines += [*_facts(places), ""]
    text = "\r\n".join(lines).encode()  # read with a card reader, on whatever the reader has
    path = places.card / card.STATUS
    try:
        if path.exists() and path.read_bytes() == text:
            return
        replace(path, text, mode=0o644)
    except (OSError, CardError) as e:
        sys.stderr.write(f"picket: {path}: cannot be written: {e}\n")
