"""Checks the address of the page, without the seconds that loading gradio takes."""

from __future__ import annotations

import socket

from metanlp.core.errors import InputError


def check_free(host: str, port: int) -> None:
    """Raises InputError if the port is invalid or taken, or the address is not one of this machine."""
    if not 0 < port < 2**16:
        raise InputError(f"--port {port} is no port; give one from 1 to {2**16 - 1}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trying:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot listen there ({error.strerror}); give others") from None
