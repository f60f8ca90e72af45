"""The model ladder: TR121's seven GPT-2 variants, built offline, the same anywhere.

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

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from phaselaw.commands.options import a_path, add_json, answer, option
from phaselaw.errors import BAD_ANSWER, DONE, UsageError
from phaselaw.ladder.build import Progress, build, cache_directory, chosen, faults
from phaselaw.ladder.gguf import FORMATS, export, exportable
from phaselaw.ladder.spec import PREFIX


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, action, help_text in (
        ("build", build_models, "build models that are not built, or are damaged"),
        ("list", list_models, "list the ladder's models and what is built"),
        ("verify", verify_models, "read every built file against its SHA-256"),
        ("export", export_models, "write models as GGUF files, which llama.cpp and Ollama load"),
    ):
        one = actions.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        what = "models, comma-separated (default: all)"
        if name == "export":
            beside = "with a Modelfile beside each for: ollama create NAME -f MODELFILE"
            one.description = f"Write models as GGUF files, {beside}"
            what = "ladder models or GPT-2 folders, comma-separated (default: the ladder)"
            option(one, "--format", None, "the file format (default: gguf)", choices=("gguf",), default="gguf")
            option(one, "--quantize", "LIST", "write these beside f32, comma-separated: f16, q8_0, q4_0", default="")
        option(one, "names", "NAMES", what, nargs="*")
        option(one, "--out", "DIR", "the folder to use instead of the cache", type=a_path)
        add_json(one, "print one JSON document")
        one.set_defaults(act=action)


def run(args: argparse.Namespace) -> int:
    return args.act(args) or DONE


def build_models(args: argparse.Namespace) -> None:
    paths = build(_names(args), args.out, progress_on(sys.stderr))
    document = {"models": [{"name": path.name, "path": str(path)} for path in paths]}
    answer(args.json, document, map(str, paths), indent=1)


def list_models(args: argparse.Namespace) -> None:
    rows = _described(args, every_byte=False)
    lines = [f"{'model':<18}{'params':>12}{'layers':>8}{'width':>7}{'heads':>7}{'inner':>7}  state"]
    for row in rows:
        shape = "{study_name:<18}{params:>12,}{n_layer:>8}{n_embd:>7}{n_head:>7}".format(**row)
        state = "built" if row["built"] else "; ".join(row["faults"])
        lines.append(f"{shape}{row['n_inner'] or 4 * row['n_embd']:>7}  {state}")
    answer(args.json, {"models": rows}, lines, indent=1)


def verify_models(args: argparse.Namespace) -> int:
    """Hash every file of the models named, or of all that are built; returns 3 where one is wrong."""
    rows = _described(args, every_byte=True)
    lines = (f"{row['name']}: {'; '.join(row['faults']) or 'whole'}" for row in rows)
    answer(args.json, {"models": rows}, lines, indent=1)
    if not rows and not args.json:
        sys.stderr.write("nothing is built yet: phaselaw models build\n")
    return BAD_ANSWER if any(row["faults"] for row in rows) else DONE


def export_models(args: argparse.Namespace) -> None:
    """Write GGUF files and print where each is; what can't be quantised is left out with a note."""
    asked = [name for name in args.quantize.split(",") if name]
    for name in asked:
        if name not in FORMATS:
            raise UsageError(f"--quantize has no {name!r}; it has: {', '.join(FORMATS)}")
    wanted, refused = exportable(_names(args), [each for each in FORMATS if each == "f32" or each in asked])
    for line in refused:
        sys.stderr.write(f"left out: {line}\n")
    written = [export(name, each, args.out, note=lambda line: print(line, file=sys.stderr)) for name, each in wanted]
    files = [{key: str(value) for key, value in each._asdict().items()} for each in written]
    answer(args.json, {"files": files, "left_out": refused}, (str(each.path) for each in written), indent=1)


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
    return [name for piece in args.names for name in piece.split(",") if name] or None


def _described(args: argparse.Namespace, *, every_byte: bool) -> list[dict[str, Any]]:
    """The models that were named as plain JSON: what each is, where it would be, and what is wrong with it there.

    With ``every_byte`` and no names: those that are built.
    """
    rows = []
    for model in chosen(_names(args)):
        directory = (args.out or cache_directory()) / model.name
        if every_byte and _names(args) is None and not directory.exists():
            continue
        wrong = faults(model, directory, every_byte=every_byte)
        place = {"study_name": PREFIX + model.name, "path": str(directory), "built": not wrong, "faults": wrong}
        rows.append(dataclasses.asdict(model) | place)
    return rows
