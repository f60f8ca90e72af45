"""What the host is: goes into the manifest, and tells whether a run is resumed on the machine it began on."""

import os
import platform
import re
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("phaselaw", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "polars")
"""Libraries whose versions are recorded where they are installed."""

HARDWARE = ("os", "machine", "cpu_model", "cores_physical", "cores_logical", "gpus")
IDENTITY = (*HARDWARE, "python", "libraries")
"""The parts of `host` that say what machine it is, and those that two processes of one run must share."""

_CACHE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def host() -> dict[str, Any]:
    """Operating system, processor, memory, GPUs and library versions; nothing heavy is imported for it."""
    return {
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "caches": _caches(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
        "load_average": list(os.getloadavg()),
    }


def gpus_of(manifest: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """The GPUs of a manifest, ours (`host`) or TR121's (``nvml``): each one's name and memory in MB (2^20 bytes)."""
    host, nvml = manifest.get("host"), manifest.get("nvml")
    listed = host.get("gpus") if isinstance(host, Mapping) else None
    found = [gpu for gpu in listed if isinstance(gpu, Mapping)] if isinstance(listed, list) else []
    if not found and isinstance(nvml, Mapping):
        found = [{"name": nvml.get("name"), "memory": f"{nvml.get('memory_total_mb')} MiB"}]
    sizes = [re.match(r"\s*([0-9.]+)\s*MiB", str(gpu.get("memory"))) for gpu in found]
    return [(str(gpu.get("name") or ""), float(mb[1]) if mb else None) for gpu, mb in zip(found, sizes, strict=True)]


def machine_id() -> str:
    """What tells one machine from another, and is the same in each of its containers."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text(encoding="ascii").strip() if boot.is_file() else f"{uuid.getnode():x}"


def host_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a host's identity differs, one line each; empty on the same machine with the same libraries."""
    return [
        f"{part}: {before.get(part)!r} became {now.get(part)!r}"
        for part in IDENTITY
        if before.get(part) != now.get(part)
    ]


def git_commit() -> str | None:
    """The commit of the repository the working directory is in, or ``None``."""
    return _output("git", "rev-parse", "HEAD") or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or None
    return platform.processor() or None


def _caches() -> list[dict[str, Any]]:
    """The data caches of the first processor with their sizes in bytes, as Linux or macOS name them; else none."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError, ValueError, KeyError):
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found.append({"level": int(level), "bytes": int(size[:-1]) * _CACHE_UNITS[size[-1]]})
    if platform.system() == "Darwin":
        names = {1: "hw.l1dcachesize", 2: "hw.l2cachesize", 3: "hw.l3cachesize"}
        sizes = {level: _output("sysctl", "-n", name) for level, name in names.items()}
        found = [{"level": level, "bytes": int(size)} for level, size in sizes.items() if size.isdecimal()]
    return found


def _gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs as the driver's own tool names them; empty where there is none."""
    answer = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    fields = ("name", "driver", "memory")
    return [dict(zip(fields, (part.strip() for part in line.split(",")), strict=False)) for line in answer.splitlines()]


def _output(program: str, *arguments: str) -> str:
    """What a program prints, without blanks around; empty where it is not here or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        asked: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 5, "stdin": subprocess.DEVNULL}
        printed: str = subprocess.run([program, *arguments], check=True, **asked).stdout
        return printed.strip()
    return ""
