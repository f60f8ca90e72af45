"""What a backend's rates were measured on, as far as a run says: a CPU or GPUs, how many, and their memory."""

import dataclasses

import polars as pl

from phaselaw.engines.permits import host_of, is_here
from phaselaw.machine.identity import gpus_of
from phaselaw.plan.prices import is_named
from phaselaw.records import Run

CPU = "a CPU"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What one replica ran on."""

    accelerators: tuple[str, ...] = ()
    """Names of its GPUs, or `CPU`; none where it is not known."""
    memory_bytes: float | None = None
    """Of all its GPUs, or of the host for a CPU; ``None`` where it is not known."""

    def used(self, asked: str, count: int) -> bool:
        """Whether so many of an accelerator are what it ran on; yes where it is not known what that is."""
        alike = any(is_named(asked, name) or ("cpu" in asked.lower() and name == CPU) for name in self.accelerators)
        return not self.accelerators or (alike and count <= len(self.accelerators))


def machines_of(run: Run) -> dict[str, Machine]:
    """By backend, what its models ran on.

    In process that is the device that the table of models names (``cuda``: the first GPU), else the first GPU where
    calls have a peak of its memory. A local server is taken to use all GPUs of its host, or its CPU where it has none;
    of others nothing is known.
    """
    manifest = run.manifest or {}
    host, gpus = manifest.get("host") or {}, gpus_of(manifest)
    settings = {each.get("name"): each.get("settings") or {} for each in manifest.get("engines") or []}
    found = {}
    for backend, kind in run.rows.select("backend", "backend_kind").unique().iter_rows():
        at = host_of(settings.get(backend, {}).get("url") or "")
        here = kind in ("ollama", "llamacpp") and (not at or is_here(at))
        on_its_cpu = here and host.get("cpu_model") and not gpus
        device = _device(run, backend) if kind in ("hf", "simulated") else "cpu" if on_its_cpu else ""
        cpu = [(CPU, (host.get("memory_bytes") or 0.0) / 2**20)]
        number = int(device[5:]) if device[5:].isdecimal() else 0  # of a GPU: cuda:1
        one = gpus[number : number + 1] if device.startswith("cuda") else []
        on = cpu if device == "cpu" else gpus if here else one
        size = sum(mb or 0.0 for _, mb in on) * 2**20
        found[backend] = Machine(accelerators=tuple(name for name, _ in on), memory_bytes=size or None)
    return found


def _device(run: Run, backend: str) -> str:
    """The device of an engine in this process: as the models' table says, else by the peaks of a GPU's memory."""
    models, peaks = run.models, run.rows.filter(pl.col("gpu_peak_mb") > 0)["backend"].unique().to_list()
    if {"backend", "device"} <= set(models.columns):
        return next((str(each or "") for each in models.filter(pl.col("backend") == backend)["device"]), "")
    devices = set(models.filter(pl.col("kind") == "hf")["device"]) if {"kind", "device"} <= set(models.columns) else ()
    return "cuda" if backend in peaks else "cpu" if peaks or devices == {"cpu"} else ""
