"""Every error that Picket raises on purpose: one line each, naming what was wrong.

The command line prints `picket: error: <message>` and leaves with the class's exit status;
whatever is not in here is a bug and ends the process with a traceback.
"""

from __future__ import annotations


class PicketError(Exception):
    """Base of all. `exit_status` is what a command that dies of it returns."""

    exit_status = 1


class ConfigError(PicketError):
    """The configuration has an unknown key or a value outside its bound."""

    exit_status = 2


class ModelError(PicketError):
    """A model file is missing, has the wrong hash, or is not what its manifest says."""


class AcceleratorError(PicketError):
    """The device refused a model or a tensor, or vanished."""


class CameraError(PicketError):
    """No frame came in time, or the source cannot be opened."""


class EndOfStreamError(CameraError):
    """A recorded source has played to its end: no fault."""


class ErasureError(PicketError):
    """A frame buffer did not come back to its pool, or one came that is not the pool's."""


class PhotoError(PicketError):
    """A photograph cannot be enrolled; the message names it and the reason."""


class WatchlistError(PicketError):
    """A watchlist was refused. Each reason has a subclass, in watchlist/trusted.py's order."""


class OversizedListError(WatchlistError):
    """Longer than a list may be."""


class SignatureError(WatchlistError):
    """Not signed by enough of the authorities that this node trusts."""


class ListFormatError(WatchlistError):
    """Signed, yet not in the form of a watchlist."""


class WrongFleetError(WatchlistError):
    """Meant for the nodes of another fleet."""


class StampError(WatchlistError):
    """Not a stamp, or not signed by the controller's online key."""


class WrongNodeError(WatchlistError):
    """Stamped for another node."""


class StaleStampError(WatchlistError):
    """The stamp does not answer the last poll: an old one, played back."""


class MixedListError(WatchlistError):
    """The stamp names another list than the one that came with it."""


class WrongDeploymentError(WatchlistError):
    """Meant for another deployment."""


class RollbackError(WatchlistError):
    """Older than the newest list that this node ever accepted, or another one of its version."""


class NotYetValidError(WatchlistError):
    """Before the list's not-before time."""


class ExpiredError(WatchlistError):
    """After the list's, or the lease's, end."""


class WrongModelError(WatchlistError):
    """Templates of another embedder: vectors of another model are noise."""


class GrantError(WatchlistError):
    """The content key was not granted to this boot of this node."""


class DigestError(WatchlistError):
    """The body is not the one that was signed."""


class TemplateError(WatchlistError):
    """Rows, dimension or norms are not those of templates."""


class ThresholdError(WatchlistError):
    """The list cannot be served at the false-alert rate that it asks for."""


class OutboxFullError(PicketError):
    """The outbox holds as many unacknowledged alerts as it may."""


class WireError(PicketError):
    """Bytes from outside that are too long or are not a message of wire.py."""


class LinkError(PicketError):
    """The other end did not answer in time, or an address cannot be used."""


class ControllerError(PicketError):
    """The controller cannot go on: an address in use, a file that is not what it should be."""


class DeniedError(LinkError):
    """The controller answered, and the answer is no."""


class ServiceError(PicketError):
    """A service of the node keeps dying."""


class LampError(PicketError, OSError):
    """The lamps cannot be driven. An OSError, because that is what the Lamps seam raises."""


class CardError(PicketError):
    """A file of the node's cannot be written or read: read-only, full, damaged or failing."""


class StoreError(ControllerError):
    """The controller's store cannot be reached or opened, or refused a row."""


class EvaluationError(PicketError):
    """Face data that cannot be measured with: missing, malformed, or without the parts needed."""


class DamagedError(CardError):
    """A file of the node's is not, or no longer, what was written there."""


class IdentityError(PicketError):
    """A key, certificate, request or fleet folder is missing or not what it should be."""


class SealedAlertError(WireError):
    """A sealed alert does not open, is not signed by its node, or is not what its row says."""


class SecretMemoryError(PicketError):
    """Memory that no other process can read is not to be had here."""


class ProvisionError(PicketError):
    """A card's picket-provision.toml, or a row of fleet.csv, is not what it should be."""

    exit_status = 2


class ImageError(PicketError):
    """An image or a card cannot be used: missing, altered, too small, mounted, not a device."""


class UpdateError(PicketError):
    """An update was refused, or did not come to its end."""


class RowRefusedError(StoreError):
    """The store was reached, and what was to be written contradicts what is there."""
