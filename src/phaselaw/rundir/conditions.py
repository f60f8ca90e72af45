"""What a run was made under, as its manifest tells it, and where two runs differ: the study, the host, the libraries.

Manifests of ours and of TR121 both tell it, in other words; what a manifest does not say is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OF_THE_STUDY = ("gen_tokens", "repetitions", "warmup_repetitions", "modes")
_NOT_COMPARED = ("run_name", "seed", "description")
"""Keys of a study that change no condition: its name, and the seed that its order of calls is drawn from."""

_OF_THE_HOST = ("os", "machine", "cpu_model", "cores_physical", "cores_logical", "gpus")
_LIBRARIES = ("torch", "transformers", "llama_cpp", "xllamacpp")
"""Libraries that do the work which is timed."""


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two manifests differ in study, host or engine libraries, a line each; empty for runs of one kind."""
    return _differing("study", _study(first), _study(other)) + _differing("host", _host(first), _host(other))


def host_is_known(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says anything of the machine."""
    return bool(_host(manifest))


def _study(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved study, flat."""
    study = manifest.get("study") or manifest.get("resolved")
    whole = dict(study) if isinstance(study, Mapping) else {}
    whole |= {key: manifest[key] for key in _OF_THE_STUDY if key in manifest}
    return dict(_flat({key: value for key, value in whole.items() if key not in _NOT_COMPARED}))


def _host(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Machine and libraries, flat, by the names that phaselaw gives them."""
    host = _mapping(manifest.get("host"))
    found = {key: host[key] for key in _OF_THE_HOST if key in host}
    libraries = _mapping(host.get("libraries")) or _mapping(manifest.get("torch"))
    found |= {name: libraries[name] for name in _LIBRARIES if name in libraries}
    platform = _mapping(manifest.get("platform"))
    found |= {ours: platform[key] for key, ours in _TR121_PLATFORM.items() if key in platform}
    if "name" in _mapping(manifest.get("nvml")):
        found["gpus"] = manifest["nvml"]["name"]
    return dict(_flat(found))


_TR121_PLATFORM = {"os": "os", "machine": "machine", "processor": "cpu_model"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their dotted paths; an entry of a list goes by its name where it has one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            named = inner.get("name") if isinstance(inner, Mapping) else None
            yield from _flat(inner, f"{path}[{index if named is None else named}]")
    else:
        yield path, value


def _differing(of: str, first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    if not first or not other:
        return []
    lines = []
    for key in dict.fromkeys([*first, *other]):
        entry = _entry_of_one(key, first, other)
        if entry is not None:
            lines.append(f"{of} {entry}: only in the {'first' if key in first else 'other'}")
        elif first.get(key) != other.get(key):
            lines.append(f"{of} {key}: {_said(first.get(key))} and {_said(other.get(key))}")
    return list(dict.fromkeys(lines))


def _entry_of_one(key: str, first: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The outermost entry of a list that holds ``key`` and that only one side has; ``None`` where there is none."""
    for end in (at + 1 for at, letter in enumerate(key) if letter == "]"):
        entry = key[:end]
        if not all(any(each.startswith(entry) for each in side) for side in (first, other)):
            return entry
    return None


def _said(value: Any) -> str:
    return "none" if value is None else f"{value}"[:80]
