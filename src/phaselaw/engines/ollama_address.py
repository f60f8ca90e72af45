"""Where an Ollama server is: ``OLLAMA_HOST`` as Ollama's own clients read it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

DEFAULT_PORT = 11434


def address(url: str | None, environment: Mapping[str, str]) -> str:
    """The server's address: ``url`` where a study gives one, else from ``OLLAMA_HOST``, else the default port here.

    As Ollama's clients read it: a bare host, ``:port``, IPv6 with or without brackets, a scheme with its own default
    port, a path behind a proxy; blanks and quotes around are ignored, a port that is none becomes the default. An
    address to listen on everywhere (0.0.0.0, ``::``) is reached through the loopback.
    """
    text = (url or environment.get("OLLAMA_HOST", "")).strip().strip("\"'").strip()
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme:
        scheme, rest = ("https", "ollama.com:443") if text == "ollama.com" else ("http", text)
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if has_scheme else DEFAULT_PORT
    host_port, slash, path = rest.partition("/")
    host, port = _split(host_port, default)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{slash}{path}".rstrip("/")


def _split(host_port: str, default: int) -> tuple[str, int]:
    bare = host_port.strip("[]")
    try:
        return str(ipaddress.ip_address(bare)), default
    except ValueError:
        pass
    host, colon, port = host_port.rpartition(":")
    if not colon:
        return host_port, default
    valid = port.isascii() and port.isdigit() and 0 <= int(port) <= 65535
    return host.strip("[]"), int(port) if valid else default
