"""What a study may do with this machine: the one rule of which key goes to which host, and of what it may start.

A study may be from elsewhere, and is code: it says where requests go and which program is a server. What goes beyond
what its user surely means is named and asked for: ``--allow-key HOST``, ``--allow-programs``. What was allowed is in
the environment, so that it holds in the processes that phaselaw starts.
"""

import ipaddress
import os
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from phaselaw.errors import NotReadyError

DEFAULT_KEY, DEFAULT_ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
KEY_HOSTS, TYPED_HOSTS, PROGRAMS = "PHASELAW_ALLOW_KEY", "PHASELAW_TYPED_HOSTS", "PHASELAW_ALLOW_PROGRAMS"


def allow(*, key_hosts: Sequence[str], settings: Sequence[str], programs: bool) -> None:
    """Take from a command line what it allows: hosts for any key, addresses that were typed, programs."""
    typed = [host_of(value) for key, _, value in (each.partition("=") for each in settings) if key.endswith("url")]
    for variable, hosts in ((KEY_HOSTS, key_hosts), (TYPED_HOSTS, typed)):
        if hosts:
            os.environ[variable] = ",".join([*_hosts(variable), *hosts])
    if programs:
        os.environ[PROGRAMS] = "1"


def key_for(url: str, variable: str) -> str | None:
    """The key in an environment variable, if it is to go with requests to an address; raises `NotReadyError` to ask.

    The default key goes to the host of ``OPENAI_BASE_URL``, to this machine and to what was typed; any other key, and
    any other host, must be allowed. None leaves this machine over plain http.
    """
    key, host = os.environ.get(variable), host_of(url)
    if not key or is_in_the_clear(url):
        return None
    trusted = is_here(host) or host in (host_of(os.environ.get(DEFAULT_ADDRESS, "")), *_hosts(TYPED_HOSTS))
    if host in _hosts(KEY_HOSTS) or (variable == DEFAULT_KEY and trusted):
        return key
    raise NotReadyError(f"this study would send the key in {variable} to {host}; to allow that: --allow-key {host}")


def is_in_the_clear(url: str) -> bool:
    """Whether what is sent to an address can be read on its way."""
    return not url.lower().startswith("https://") and not is_here(host_of(url))


def refusal_to_start(program: str) -> str | None:
    """Why a study may not start a program; ``None`` where it may."""
    if os.path.basename(program) == program or os.environ.get(PROGRAMS):  # noqa: PTH119
        return None
    return f"this study would start {program}, a program outside of PATH; to allow that: --allow-programs"


def host_of(url: str) -> str:
    """An address's host, in small letters; empty where it has none."""
    with suppress(ValueError):
        return (urlsplit(url).hostname or "").lower()
    return ""


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _hosts(variable: str) -> list[str]:
    return [host.strip().lower() for host in os.environ.get(variable, "").split(",") if host.strip()]
