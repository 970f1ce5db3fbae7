"""TLS at the front door: what is spoken, which certificate is shown, and how a new one takes its place.

TLS 1.2 and 1.3 with forward secrecy only (RFC 9325). The files are looked at once a second; connections made from then
on get the new certificate, those that are there go on. A pair that can't be used leaves the old one in force.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

from fleet_wire.balancer import TlsFiles

log = logging.getLogger(__name__)

LOOK_S = 1.0
# TLS 1.2 suites; those of TLS 1.3 are all good and not chosen here.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_Stamp = tuple[tuple[int, int, int], ...] | None


class TlsError(Exception):
    """The certificate or its key can't be used; str() is one line for the operator."""


class ServerTls:
    """`context` is what a listener is made with; check() and reload() change what it shows. Raises TlsError.

    The listener keeps one context for good. As each handshake begins it is pointed to the context of the newest
    certificate (OpenSSL's server name callback, which comes whether or not the client names a server), so a change
    is one assignment and no handshake sees half of it.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = _stamp(files)
        self._newest = self.context = _load(files)
        self._next_look = 0.0
        self.context.sni_callback = self._show_newest

    def configure(self, files: TlsFiles) -> None:
        """Use other files from now on. Raises TlsError and changes nothing where they can't be used."""
        stamp = _stamp(files)
        self._newest = _load(files)
        self._files, self._stamp = files, stamp

    def check(self, now: float) -> None:
        """Read the files again where they changed. `now` is monotonic seconds; cheap, looks once a second."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        if _stamp(self._files) != self._stamp:
            self.reload()

    def reload(self) -> bool:
        """Read the files again; False, with a line in the log, where they can't be used."""
        # Taken before the files are read: a change in between is seen at the next look.
        self._stamp = _stamp(self._files)
        try:
            self._newest = _load(self._files)
        except TlsError as error:
            log.error("the certificate stays as it was: %s", error)
            return False
        log.info("the certificate %s was read again", self._files.certificate)
        return True

    def _show_newest(self, connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        if connection.context is not self._newest:
            connection.context = self._newest


def _stamp(files: TlsFiles) -> _Stamp:
    """What changes when either file does; None where one is not there."""
    try:
        seen = [Path(path).stat() for path in (files.certificate, files.key)]
    except OSError:
        return None
    return tuple((s.st_ino, s.st_mtime_ns, s.st_size) for s in seen)


def _load(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    for what, path in (("certificate", files.certificate), ("key", files.key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise TlsError(f"the TLS {what} {path} can't be read: {error.strerror}") from None
    try:
        # An encrypted key would ask a terminal for its password: there is none to ask.
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except _Encrypted:
        raise TlsError(
            f"the TLS key {files.key} is encrypted; store it without a password, mode 0600"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"the TLS key {files.key} does not belong to the certificate {files.certificate}"
        else:
            why = (
                f"the TLS certificate {files.certificate} with the key {files.key} can't be used: "
                f"{error.reason or 'not PEM'}"
            )
        raise TlsError(why) from None
    return context


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted
