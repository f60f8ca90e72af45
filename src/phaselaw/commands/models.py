"""``phaselaw models``: build, list, verify and export the model ladder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phaselaw.commands.options import option, switch
from phaselaw.errors import UsageError
from phaselaw.ladder.build import Progress, build, cache_directory, chosen, faults
from phaselaw.ladder.gguf import FORMATS, export, exportable
from phaselaw.ladder.spec import PREFIX, LadderModel

DESCRIPTION = "The model ladder: TR121's seven GPT-2 variants, built offline, the same anywhere."
EXAMPLES = """\
examples:
  phaselaw models list                                what the ladder has, and what of it is built
  phaselaw models build                               build all seven into the cache (1.2 GB, seconds)
  phaselaw models build gpt2-25m,tiny-gpt2 --out dir  build two of them into a folder of your own
  phaselaw models verify                              read every file that is built against its checksum
  phaselaw models export --quantize q8_0,q4_0         GGUF files for llama.cpp and Ollama: F32, and quantised
  phaselaw models export my-gpt2/ --out dir           any GPT-2 in a folder, as transformers keeps it

The models are TR121's seven GPT-2 variants with seeded random weights: right for timing, not for text. A
study names them models/NAME. The cache is the platform's user cache folder, or $PHASELAW_CACHE.
"""

EXIT_OK, EXIT_FAULTS = 0, 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """The actions, each with its options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, help_text, action in (
        ("build", "build models that are not built, or are damaged", build_models),
        ("list", "list the ladder's models and what is built", list_models),
        ("verify", "read every built file against its SHA-256", verify_models),
    ):
        one = actions.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        option(one, "names", "NAMES", "models, comma-separated (default: all)", nargs="*")
        option(one, "--out", "DIR", "the folder to use instead of the cache", type=Path)
        switch(one, "--json", "print one JSON document")
        one.set_defaults(act=action)
    _add_export(actions)


def _add_export(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    help_text = "write models as GGUF files, which llama.cpp and Ollama load"
    export = actions.add_parser(
        "export",
        help=help_text,
        description="Write models as GGUF files, with a Modelfile beside each for: ollama create NAME -f MODELFILE",
    )
    option(export, "names", "NAMES", "ladder models or GPT-2 folders, comma-separated (default: the ladder)", nargs="*")
    export.add_argument("--format", choices=("gguf",), default="gguf", help="the file format (default: gguf)")
    option(export, "--quantize", "LIST", "write these beside f32, comma-separated: f16, q8_0, q4_0", default="")
    option(export, "--out", "DIR", "the folder to use instead of the cache", type=Path)
    switch(export, "--json", "print one JSON document")
    export.set_defaults(act=export_models)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action; returns its exit code."""
    action: Callable[[argparse.Namespace], int] = args.act
    return action(args)


def build_models(args: argparse.Namespace) -> int:
    """Build what is missing or damaged and print where each model is."""
    paths = build(_names(args), args.out, progress_on(sys.stderr))
    if args.json:
        print(json.dumps({"models": [{"name": path.name, "path": str(path)} for path in paths]}, indent=1))
    else:
        print(*paths, sep="\n")
    return EXIT_OK


def list_models(args: argparse.Namespace) -> int:
    """Print the ladder: architecture, parameters, and whether each model is built."""
    rows = [_described(model, directory, every_byte=False) for model, directory in _chosen(args)]
    if args.json:
        print(json.dumps({"models": rows}, indent=1))
        return EXIT_OK
    print(f"{'model':<18}{'params':>12}{'layers':>8}{'width':>7}{'heads':>7}{'inner':>7}  state")
    for row in rows:
        inner = row["n_inner"] or 4 * row["n_embd"]
        state = "built" if row["built"] else "; ".join(row["faults"])
        print(
            f"{row['study_name']:<18}{row['params']:>12,}{row['n_layer']:>8}{row['n_embd']:>7}{row['n_head']:>7}"
            f"{inner:>7}  {state}"
        )
    return EXIT_OK


def verify_models(args: argparse.Namespace) -> int:
    """Hash every file of the models named, or of all that are built; returns 1 where one is wrong."""
    chosen = _chosen(args)
    if _names(args) is None:
        chosen = [(model, directory) for model, directory in chosen if directory.exists()]
    rows = [_described(model, directory, every_byte=True) for model, directory in chosen]
    if args.json:
        print(json.dumps({"models": rows}, indent=1))
    else:
        for row in rows:
            print(f"{row['name']}: {'; '.join(row['faults']) or 'whole'}")
        if not rows:
            sys.stderr.write("nothing is built yet: phaselaw models build\n")
    return EXIT_FAULTS if any(row["faults"] for row in rows) else EXIT_OK


def export_models(args: argparse.Namespace) -> int:
    """Write GGUF files and print where each is; what can't be quantised is left out with a note."""
    asked = [name for name in args.quantize.split(",") if name]
    for name in asked:
        if name not in FORMATS:
            raise UsageError(f"--quantize has no {name!r}; it has: {', '.join(FORMATS)}")
    formats = [each for each in FORMATS if each == "f32" or each in asked]
    wanted, refused = exportable(_names(args), formats)
    for line in refused:
        sys.stderr.write(f"left out: {line}\n")
    written = [export(name, each, args.out, note=lambda line: print(line, file=sys.stderr)) for name, each in wanted]
    if args.json:
        rows = [{"name": each.name, "weights": each.weights, "path": str(each.path), "modelfile": str(each.modelfile)}
                for each in written]  # fmt: skip
        print(json.dumps({"files": rows, "left_out": refused}, indent=1))
    else:
        print(*(each.path for each in written), sep="\n")
    return EXIT_OK


def progress_on(stream: Any) -> Progress:
    """A line for each model that is being built: redrawn on a terminal, otherwise written once."""
    redraws = stream.isatty()
    begun: set[str] = set()

    def show(name: str, done: int, total: int) -> None:
        if redraws:
            stream.write(f"\rbuilding {name}: {100 * done // total:3d} %" + ("\n" if done == total else ""))
        elif name not in begun:
            stream.write(f"building {name} ({total / 1e6:.0f} MB)\n")
        begun.add(name)
        stream.flush()

    return show


def _names(args: argparse.Namespace) -> Sequence[str] | None:
    names = [name for piece in args.names for name in piece.split(",") if name]
    return names or None


def _chosen(args: argparse.Namespace) -> list[tuple[LadderModel, Path]]:
    root: Path = args.out or cache_directory()
    return [(model, root / model.name) for model in chosen(_names(args))]


def _described(model: LadderModel, directory: Path, *, every_byte: bool) -> dict[str, Any]:
    """A model as plain JSON: what it is, where it would be, and what is wrong with it there."""
    wrong = faults(model, directory, every_byte=every_byte)
    return {
        **dataclasses.asdict(model),
        "study_name": PREFIX + model.name,
        "path": str(directory),
        "built": not wrong,
        "faults": wrong,
    }
