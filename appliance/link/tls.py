"""TLS under NNG: both ends' settings, and who is at the other end of a pipe.

PEM bytes enter, a configuration for one socket leaves, or a common name. No file is read here.

What pynng 0.9.0 needs, each of it measured (numbers as in the link's feasibility report):

- TLS 1.3 handshakes race in the Mbed TLS of the wheel (about one in a thousand fails), TLS 1.2
  handshakes do not: the version is pinned by the C function, which pynng does not wrap (D4).
- Only P-256, P-384 and RSA certificates can be loaded; Ed25519 is refused.
- A client must be told the server's name: it is not taken from the address.
- The other end's common name is readable for each pipe, but only in C, and only CN-only subjects
  compare exactly. Alternative names are never read: an empty one hangs the reader for ever (D8).
- A revocation list that has run out refuses everybody: controller/identity.py makes them to last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from appliance.errors import LinkError


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a listening socket proves and asks for. All PEM.

    Attributes:
        ca: certificate of the one authority whose certificates are accepted.
        certificate, key: of this end.
        crl: certificates that are no longer accepted, signed by `ca`.
        mutual: whoever connects must show a certificate. False is for the join port alone, where
            those knock who have none yet: everybody is let in, and nobody is known.
    """

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    crl: bytes | None = None
    mutual: bool = True


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What a dialling socket proves and asks for. All PEM.

    Attributes:
        ca: certificate of the one authority whose servers are believed.
        server_name: common name that the server's certificate must have.
        certificate, key: of this end; None to join, when there is none yet.
        crl: certificates that are no longer believed, signed by `ca`.
    """

    ca: bytes
    server_name: str
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    crl: bytes | None = None


def server_config(tls: ServerTls) -> Any:  # noqa: ANN401 - pynng has no types
    """A pynng.TLSConfig for a listener.

    Raises:
        LinkError: a certificate, key or list that Mbed TLS cannot load, or that do not fit.
    """
    import pynng

    # AUTH_MODE_NONE must be set by the method: the constructor takes its value, 0, for "not given".
    mode = pynng.TLSConfig.AUTH_MODE_REQUIRED if tls.mutual else pynng.TLSConfig.AUTH_MODE_NONE
    return _config(pynng.TLSConfig.MODE_SERVER, mode, tls, server_name=None)


def client_config(tls: ClientTls) -> Any:  # noqa: ANN401 - pynng has no types
    """A pynng.TLSConfig for a dialer.

    Raises:
        LinkError: as for a server; or no server name, without which any server of the fleet,
            and any node, could stand in for the controller.
    """
    import pynng

    if not tls.server_name:
        raise LinkError("TLS: no server name to hold the controller's certificate against")
    required = pynng.TLSConfig.AUTH_MODE_REQUIRED
    return _config(
        pynng.TLSConfig.MODE_CLIENT, required, tls, server_name=tls.server_name.encode("ascii")
    )


def common_name(pipe: Any) -> str | None:  # noqa: ANN401 - pynng has no types
    """Common name of the other end's verified certificate; None if it has shown none.

    For the pre-connect callback of a pipe, where it costs a look-up in memory.
    """
    from pynng import ffi, lib

    verified, name = ffi.new("bool *"), ffi.new("char **")
    if lib.nng_pipe_get_bool(pipe.pipe, b"tls-verified", verified) or not verified[0]:
        return None
    if lib.nng_pipe_get_string(pipe.pipe, b"tls-peer-cn", name) or name[0] == ffi.NULL:
        return None
    try:
        return bytes(ffi.string(name[0])).decode("ascii")
    except UnicodeDecodeError:  # no name of ours
        return None
    finally:
        lib.nng_strfree(name[0])


def _config(
    mode: int,
    auth_mode: int,
    tls: ServerTls | ClientTls,
    *,
    server_name: bytes | None,
) -> Any:  # noqa: ANN401 - pynng has no types
    import pynng

    _go_together(tls.certificate, tls.key)
    config = pynng.TLSConfig(mode)
    try:
        config.set_auth_mode(auth_mode)
        if server_name is not None:
            config.set_server_name(server_name)
        config.set_ca_chain(tls.ca, tls.crl)
        if tls.certificate is not None:
            config.set_own_cert(tls.certificate, tls.key)
        lib = pynng.lib
        pynng.check_err(
            lib.nng_tls_config_version(
                config._tls_config,  # noqa: SLF001 - no public name exists
                lib.NNG_TLS_1_2,
                lib.NNG_TLS_1_2,
            )
        )
    except pynng.NNGException as e:
        raise LinkError(f"TLS: the certificates cannot be used: {e}") from e
    return config


def _go_together(certificate: bytes | None, key: bytes | None) -> None:
    """Mbed TLS takes a key that is not its certificate's, and fails at every handshake."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise LinkError("TLS: a certificate and its key go together")
    # Here, because the indicator, which has a socket and no certificate, need not load all this.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        private = load_pem_private_key(key, password=None)
        public = load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise LinkError(f"TLS: the certificate or its key cannot be read: {e}") from e
    if private.public_key() != public:
        raise LinkError("TLS: the key is not the certificate's")
