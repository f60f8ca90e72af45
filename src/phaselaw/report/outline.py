"""The report's outline and wording, as ``outline.toml`` has them."""

import tomllib
from importlib import resources
from typing import Any

_READ = tomllib.loads(resources.files("phaselaw.report").joinpath("outline.toml").read_text("utf-8"))

CHAPTERS: dict[str, list[dict[str, list[str]]]] = {each["title"]: each.get("section", []) for each in _READ["chapter"]}
"""By chapter its sections: ``title``, what it ``says``, and its ``tables``."""
DOTS: dict[str, dict[str, Any]] = _READ["dots"]
"""Dot plots: caption, axis, what its rows are ``by``, and the columns of its points."""
WORDING: dict[str, dict[str, str]] = {name: told for name, told in _READ.items() if name not in ("chapter", "dots")}
"""How things are told, by what is told of them and by their names (`phaselaw.laws.decisions`)."""
IN_PROSE = WORDING["in_prose"]
"""Words that are explained wherever they stand."""
GLOSSARY = IN_PROSE | WORDING["in_cells"]
"""Every word with what it means."""
