"""The certificate with which the dashboard terminates TLS: checked at the start, read again when it changes.

Files that do not fit together are logged, and the certificate from before is served. Nothing here obtains a
certificate (ACME). When to look is `server`; whether TLS is needed is `configuration`.
"""

import logging
import ssl
from contextlib import suppress
from pathlib import Path

from episodes_assets.errors import BadSetting

_LOG = logging.getLogger(__name__)


def require_usable(certificate: Path, key: Path) -> None:
    """Refuse to start with a certificate that cannot be served.

    Args:
        certificate: PEM file.
        key: PEM file.

    Raises:
        BadSetting: If one of them cannot be read, or if they do not belong together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise BadSetting(
            f"{certificate} cannot be used with its key ({error.strerror or error})",
            "EPISODES_TLS_CERTIFICATE and EPISODES_TLS_KEY name PEM files that belong together",
        ) from error


class Certificate:
    """A certificate with its key, which is read again when one of the two files has changed.

    Args:
        certificate: PEM file.
        key: PEM file.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._seen = self._versions()

    def renew(self, context: ssl.SSLContext) -> None:
        """Let the handshakes from now on have the certificate of the files, if that is another one.

        Files that cannot be used, such as the first of two that are being replaced, change nothing.
        """
        found = self._versions()
        if found == self._seen:
            return
        self._seen = found
        try:
            # Not in the one that serves: it would keep a certificate without a key that fits. With a
            # password, as asking somebody for that of a key that has one would keep the event loop waiting.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key, "")
            context.load_cert_chain(self._certificate, self._key)
        except OSError as error:
            _LOG.error(
                "%s has changed and cannot be used with its key (%s); the certificate from before is served",
                self._certificate,
                error.strerror or error,
            )
        else:
            _LOG.warning("%s has changed, and is served from now on", self._certificate)

    def _versions(self) -> list[tuple[int, ...]]:
        """What changes with the files."""
        found: list[tuple[int, ...]] = []
        for path in (self._certificate, self._key):
            with suppress(OSError):  # it is being replaced
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return found
