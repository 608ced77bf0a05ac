"""Say so before Ray ends this process.

When the raylet of its node is gone, Ray (2.60) ends the driver with _exit, within a third of a second and with pages of
the raylet's state for a message; when a local GCS is gone, it does so after a minute. Nothing can be caught then, and
nothing measured any more, so all there is to do is to be faster, by a connection that the kernel closes together with
the process at its other end."""

import atexit
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_LOG = logging.getLogger(__name__)
_CONNECT_SECONDS = 5.0
_PAUSE_SECONDS = 0.01

Address = tuple[str, int]


def end_process(logs: Path) -> None:
    """One sentence, with the folder of Ray's logs, and exit code 1."""
    _LOG.critical(
        "distcalib: Ray on this machine was killed, and nothing can be measured without it; its logs in %s or the "
        "kernel's (dmesg) tell why; then give the same command again",
        logs,
    )
    os._exit(1)


class Vigil:
    """Calls `on_end` once, in a thread, when nobody listens any more at one of `addresses`. `end` it before they are
    shut down in good order."""

    def __init__(self, addresses: Sequence[Address], on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._over = threading.Event()
        for address in addresses:
            threading.Thread(target=self._watch, args=(address,), daemon=True).start()
        atexit.register(self.end)  # before Ray's own, which was registered when it was imported

    def end(self) -> None:
        """Watch no more; twice does no harm."""
        self._over.set()
        atexit.unregister(self.end)

    def _watch(self, address: Address) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(address, _CONNECT_SECONDS) as connection:
                    connection.settimeout(None)
                    while connection.recv(4096):  # its greeting; it hangs up on who says nothing, from time to time
                        pass
            except ConnectionRefusedError:
                break
            except OSError:
                pass
            self._over.wait(_PAUSE_SECONDS)
        if not self._over.is_set():
            self._over.set()
            self._on_end()
