"""What a GPU machine has and lacks, told in its first seconds; what it lacks is unpacked from a folder of wheels.

The requirements are those of pyproject.toml: the core's and the extra ``hf``'s, and what the tests need. A package that
is there in a version that will do is left alone. One that is absent, or too old, is unpacked from the wheels into a
folder of its own, which goes on PYTHONPATH: beside what is there, never over it. A wheel is a zip file, so that pip is
not needed. torch, transformers and numpy are never taken from wheels: those of the machine are what is measured.

    python benchmarks/gpu_site.py --wheels .whl --site /tmp/site [--dry]

Exit code 0 where everything is at hand, else 1 with a line for each thing missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

TOP = Path(__file__).resolve().parents[1]
PYTHON = (3, 11)
KEPT = ("torch", "transformers", "numpy")
"""Never taken from a wheel."""
FOR_TESTS = ("pytest", "pytest-timeout", "hypothesis")
"""Without these one part is left out; everything else runs."""


def main() -> int:
    """Say what is here, unpack what is not, and name what can't be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, required=True, help="the folder of wheels")
    parser.add_argument("--site", type=Path, required=True, help="where they are unpacked")
    parser.add_argument("--dry", action="store_true", help="no CUDA device is asked for")
    args = parser.parse_args()
    print(f"python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}", flush=True)
    if sys.version_info < PYTHON:
        print(f"missing: Python {PYTHON[0]}.{PYTHON[1]} or newer; name another in PYTHON")
        return 1
    missing = list(_packages(args.wheels, args.site))
    if not any(line.startswith("torch") for line in missing):
        missing += _torch_faults(dry=args.dry)
    for line in missing:
        print(f"missing: {line}")
    if missing:
        print(f"what can travel as a wheel: benchmarks/gpu_wheels.sh {sys.version_info[0]}.{sys.version_info[1]}")
    return 1 if missing else 0


def _packages(wheels: Path, site: Path) -> Iterator[str]:
    """Unpack what is wanted and not here; what can't be had, a line each."""
    if importlib.util.find_spec("packaging") is None:
        for path in sorted(wheels.glob("packaging-*.whl")):
            _unpack(path, site)
        if not site.is_dir():
            yield "packaging (transformers needs it too)"
            return
        sys.path.insert(0, str(site))
    import tomllib

    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["hf"]]
    yield from Site(wheels, site).take(wanted)
    for line in Site(wheels, site).take(FOR_TESTS):
        print(f"the tests will be left out: {line}")


class Site:
    """The folder that goes before what is installed, filled from wheels."""

    def __init__(self, wheels: Path, site: Path) -> None:
        self._wheels, self._site = wheels, site

    def take(self, wanted: list[str] | tuple[str, ...]) -> Iterator[str]:
        """Unpack what of these, and of what they need, is not here; what can't be had, a line each."""
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        queue, seen = [Requirement(line) for line in wanted], set()
        while queue:
            need = queue.pop(0)
            name = canonicalize_name(need.name)
            if (need.marker is not None and not need.marker.evaluate({"extra": ""})) or str(need) in seen:
                continue
            seen.add(str(need))
            here = _version(name, self._site)
            if here is not None and need.specifier.contains(here, prereleases=True):
                continue
            wheel = None if name in KEPT else self._fitting(name, need)
            if wheel is None:
                yield f"{need}" + (f" (here is {here})" if here else "") + ("" if name in KEPT else ", no wheel fits")
                continue
            _unpack(wheel, self._site)
            print(f"from the wheels: {wheel.name}" + (f" (beside {here})" if here else ""))
            [found] = metadata.distributions(name=name, path=[str(self._site)])
            queue += [Requirement(line) for line in found.requires or ()]

    def _fitting(self, name: str, need: Requirement) -> Path | None:
        """The newest wheel of a package that fits the requirement and this interpreter."""
        from packaging.tags import sys_tags
        from packaging.utils import parse_wheel_filename

        tags, fitting = set(sys_tags()), []
        for path in self._wheels.glob("*.whl"):
            found, version, _, theirs = parse_wheel_filename(path.name)
            if found == name and theirs & tags and need.specifier.contains(version, prereleases=True):
                fitting.append((version, path))
        return max(fitting)[1] if fitting else None


def _version(name: str, site: Path) -> str | None:
    """The version that an import would find: the unpacked one before the installed."""
    for path in ([str(site)], sys.path):
        for found in metadata.distributions(name=name, path=path):
            return found.version
    return None


def _unpack(wheel: Path, site: Path) -> None:
    """A wheel's packages into a folder; its scripts are left out."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for part in site.glob("*.data"):
        for kind in ("purelib", "platlib"):
            if (part / kind).is_dir():
                shutil.copytree(part / kind, site, dirs_exist_ok=True)
        shutil.rmtree(part)


def _torch_faults(*, dry: bool) -> list[str]:
    """What of torch is missing: a CUDA device, unless this is dry."""
    if dry:  # to import it takes seconds, and each part does
        print(f"torch {metadata.version('torch')}", flush=True)
        return []
    import torch

    print(f"torch {torch.__version__}, built for CUDA {torch.version.cuda}", flush=True)
    if torch.cuda.is_available():
        return []
    return ["a CUDA device that this torch can use; without one: benchmarks/gpu.sh --dry"]


if __name__ == "__main__":
    sys.exit(main())
