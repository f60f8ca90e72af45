"""A study: what to measure. Its types, the cells it expands into, and the studies that ship with the package.

The keys are TR121's (``run_name, gen_tokens, repetitions, warmup_repetitions, seed, scenarios, backends, models``) plus
``order`` and ``axes``. The backends are in `phaselaw.study.backends`; reading the file, with a line number for each
fault, is `phaselaw.study.file`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from phaselaw.errors import StudyError
from phaselaw.records import Cell, Order
from phaselaw.study import file as study_file
from phaselaw.study.axes import Axes, backends_at, fault_of, is_put, of_backend
from phaselaw.study.backends import (
    AnyBackend,
    Count,
    HfBackend,
    LlamacppBackend,
    Name,
    OllamaBackend,
    OpenaiBackend,
    ServedBackend,
    SimulatedBackend,
    Strict,
)
from phaselaw.study.faults import did_you_mean
from phaselaw.study.schema import editor_schema
from phaselaw.study.text import printable, shown

__all__ = [
    "Axes",
    "Backend",
    "HfBackend",
    "LlamacppBackend",
    "ModelEntry",
    "OllamaBackend",
    "OpenaiBackend",
    "Scenario",
    "SimulatedBackend",
    "Study",
    "load_study",
    "select",
    "shipped_studies",
    "study_path",
    "study_schema",
]

SCHEMA_VERSION = 1
"""Version of the study format: raised when a study that was right is no longer, never for a new key."""

MAX_ITEMS = 1000
"""Entries of one list: models, backends, scenarios."""

Backend = Annotated[AnyBackend, Field(discriminator="kind")]


class Scenario(Strict):
    """A named prompt: a text, or a synthetic prompt of an exact number of tokens."""

    name: Name = Field(description="Name of the scenario, unique within the study.")
    prompt: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = Field(
        default=None, description="The prompt as text; give this or prompt_tokens."
    )
    prompt_tokens: Count | None = Field(
        default=None, description="A synthetic prompt of exactly this many tokens; give this or prompt."
    )

    @model_validator(mode="after")
    def _one_kind_of_prompt(self) -> Self:
        if (self.prompt is None) == (self.prompt_tokens is None):
            raise ValueError("give exactly one of prompt (a text) and prompt_tokens (a count)")
        return self


class ModelEntry(Strict):
    """A model to measure; it runs on the backends of its kind."""

    name: Name = Field(description="models/NAME of the built ladder, a local folder, or the engine's own name.")
    kind: Literal["hf", "simulated", "ollama", "llamacpp", "openai"] = Field(
        description="Which kind of backend runs it."
    )
    params_millions: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="A label; serves only where parameters can't be measured."
    )
    n_layer: Count | None = Field(default=None, description="Layers of a simulated model.")
    backends: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_ITEMS, strict=False)] | None = Field(
        default=None, description="Only on these backends of its kind; left out: on all of them."
    )
    same_as: Name | None = Field(
        default=None, description="The name that these weights have on another engine, to compare the two."
    )

    @property
    def identity(self) -> str:
        """What names these weights on every engine: models of one identity are compared as one model."""
        return self.same_as or self.name

    def runs_on(self, backend: Strict) -> bool:
        """Whether a backend is one of this model's."""
        of_its_kind = getattr(backend, "kind", None) == self.kind
        return of_its_kind and (self.backends is None or getattr(backend, "name", None) in self.backends)


class Study(Strict):
    """What to measure: every model on every backend of its kind, under every scenario and decode budget."""

    run_name: Name = Field(description="Name of the study; names its run directory.")
    gen_tokens: Count = Field(default=64, description="Decode steps of each call.")
    repetitions: Count = Field(default=3, description="Measured calls of each cell.")
    warmup_repetitions: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="Calls of each cell before, kept as data, left out of fits."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=42, description="Seeds the order and the prompts.")
    order: Order = Field(
        default="rounds", description="rounds: every cell once, then again; cells: a cell's calls back to back."
    )
    axes: Axes = Field(default_factory=Axes, description="Values to sweep over.")
    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1, max_length=MAX_ITEMS, strict=False)] = Field(
        description="Prompts."
    )
    backends: Annotated[tuple[Backend, ...], Field(min_length=1, max_length=MAX_ITEMS, strict=False)] = Field(
        description="Engines."
    )
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1, max_length=MAX_ITEMS, strict=False)] = Field(
        description="Models."
    )

    def budgets(self) -> tuple[int, ...]:
        """The decode budgets, in tokens: the axis where there is one, else ``gen_tokens``."""
        return self.axes.gen_tokens or (self.gen_tokens,)

    def cells(self) -> tuple[Cell, ...]:
        """Every cell in the file's order: models x backends x scenarios x budgets x batch sizes x clients."""
        return tuple(
            Cell(
                backend=backend.name,
                backend_kind=backend.kind,
                model=model.name,
                scenario=scenario.name,
                batch_size=batch_size,
                gen_tokens=budget,
                concurrency=clients,
            )
            for model in self.models
            for backend in self.backends
            if model.runs_on(backend)
            for scenario in self.scenarios
            for budget in self.budgets()
            for batch_size in self._batch_sizes(backend)
            for clients in (backend.concurrency if isinstance(backend, ServedBackend) else (1,))
        )

    def _batch_sizes(self, backend: AnyBackend) -> tuple[int, ...]:
        """The batch sizes of a backend: the axis where there is one, else its own; a server's is always its own."""
        own: tuple[int, ...] = (backend.batch_size,)
        return own if isinstance(backend, ServedBackend) else self.axes.batch_size or own

    def calls_planned(self) -> int:
        """How many calls the whole study makes: each cell's warmups and repetitions, by each of its clients."""
        return sum(cell.concurrency for cell in self.cells()) * (self.warmup_repetitions + self.repetitions)

    def backend(self, name: str) -> AnyBackend:
        """The backend of this name; KeyError where there is none."""
        return {backend.name: backend for backend in self.backends}[name]

    def model(self, name: str, kind: str) -> ModelEntry:
        """The model of this name for this kind of backend; KeyError where there is none."""
        by_identity: dict[tuple[str, str], ModelEntry] = {(model.name, model.kind): model for model in self.models}
        return by_identity[name, kind]

    def scenario(self, name: str) -> Scenario:
        """The scenario of this name; KeyError where there is none."""
        return {scenario.name: scenario for scenario in self.scenarios}[name]

    def models_of(self, backend: str) -> tuple[ModelEntry, ...]:
        """The models that run on a backend."""
        return tuple(model for model in self.models if model.runs_on(self.backend(backend)))

    def resolved(self) -> dict[str, Any]:
        """The whole study as plain JSON types, defaults and resolved names filled in."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """SHA-256 of the resolved study's canonical JSON: equal for studies that ask the same."""
        canonical = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_simulated(self, sizes: Mapping[str, tuple[float, int]] = MappingProxyType({})) -> Study:
        """The same cells on simulated engines: every backend keeps its name and batch size, every model its name.

        ``sizes`` are the ladder's millions of parameters and layers by name, for models without labels. A server is
        simulated as one client: its cells of several clients become one. A backend that is simulated already keeps its
        law.
        """
        backends = tuple(
            backend
            if isinstance(backend, SimulatedBackend)
            else SimulatedBackend(
                name=backend.name,
                kind="simulated",
                batch_size=backend.batch_size,
                threads=getattr(backend, "threads", None),
                cold_start_ms=50,
            )
            for backend in self.backends
        )
        by_name: dict[str, list[ModelEntry]] = {}
        for model in self.models:
            by_name.setdefault(model.name, []).append(model)
        models = tuple(
            _simulated(entries[0], on, sizes)
            for entries in by_name.values()
            if (on := tuple(each.name for each in self.backends if any(entry.runs_on(each) for entry in entries)))
        )
        return self.model_copy(update={"backends": backends, "models": models})


def _simulated(model: ModelEntry, backends: tuple[str, ...], sizes: Mapping[str, tuple[float, int]]) -> ModelEntry:
    params, layers = sizes.get(model.identity.removeprefix("models/"), (None, None))
    return ModelEntry(
        name=model.name,
        kind="simulated",
        params_millions=model.params_millions or params,
        n_layer=model.n_layer or layers,
        backends=backends,
        same_as=model.same_as,
    )


def shipped_studies() -> dict[str, Path]:
    """The studies that ship with the package, by name."""
    folder = Path(str(resources.files("phaselaw").joinpath("studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def load_study(
    name_or_path: str,
    *,
    settings: Sequence[str] = (),
    backends: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    scenarios: Sequence[str] | None = None,
) -> Study:
    """Read a study file or a shipped study, with ``key=value`` settings put in and allow-lists applied.

    Its backends are as its axes ask (`phaselaw.study.axes`). Raises `StudyError`: one line that names the file, the
    line, the key, what is wrong and what to do.
    """
    path = study_path(name_or_path)
    study = study_file.read(path, Study, settings)
    study = select(study, str(path), backends=backends, models=models, scenarios=scenarios)
    return _put_to_axes(study, str(path))


def _put_to_axes(study: Study, source: str) -> Study:
    """The study with its backends as its axes ask; raises `StudyError` where an axis can't be swept on one of them."""
    fault = fault_of(study.axes, study.backends)
    if fault is not None:
        raise StudyError(f"{source}: {fault}")
    models = study.models
    values = study.axes.threads
    if values is not None and not is_put(study.axes, study.backends):
        models = tuple(
            model.model_copy(update={"backends": tuple(of_backend(name, n) for name in model.backends for n in values)})
            if model.backends
            else model
            for model in models
        )
    return study.model_copy(update={"backends": backends_at(study.axes, study.backends), "models": models})


def study_path(name_or_path: str) -> Path:
    """The file of a shipped study or of a path; raises `StudyError` where there is none."""
    shipped = shipped_studies()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    try:
        if not name_or_path:
            # Path("") is the current folder, which nobody asked for.
            raise FileNotFoundError
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hint = did_you_mean(name_or_path, shipped) or f" ({', '.join(shipped)})"
        raise StudyError(f"{printable(name_or_path)}: no such study file, nor a shipped study{hint}") from None
    except OSError as error:
        raise StudyError(f"{printable(name_or_path)}: can't be read: {error.strerror}") from None
    return path


def select(
    study: Study,
    source: str,
    *,
    backends: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    scenarios: Sequence[str] | None = None,
) -> Study:
    """The part of a study that the allow-lists name; raises `StudyError` for a name it lacks or an empty rest.

    Models left without a backend, and backends left without a model, go too: they would only be loaded or checked.
    """
    lists = {"backends": backends, "models": models, "scenarios": scenarios}
    if all(names is None for names in lists.values()):
        return study
    kept = {key: _chosen(getattr(study, key), names, f"{source}: {key}") for key, names in lists.items()}
    kept["models"] = tuple(model for model in kept["models"] if any(map(model.runs_on, kept["backends"])))
    kept["backends"] = tuple(backend for backend in kept["backends"] if any(m.runs_on(backend) for m in kept["models"]))
    if not kept["models"]:
        raise StudyError(f"{source}: nothing is left to measure: no chosen model runs on a chosen backend")
    return study.model_copy(update=kept)


def _chosen(entries: tuple[Any, ...], names: Sequence[str] | None, where: str) -> tuple[Any, ...]:
    if names is None:
        return entries
    known = dict.fromkeys(entry.name for entry in entries)
    if not names:
        raise StudyError(f"{where}: the list of names is empty; it has: {', '.join(known)}")
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has: {', '.join(known)}"
            raise StudyError(f"{where}: no {shown(name)} in this study{hint}")
    return tuple(entry for entry in entries if entry.name in names)


def study_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors: what a file may say, TR121's spellings included."""
    return editor_schema(Study.model_json_schema(), version=SCHEMA_VERSION)
