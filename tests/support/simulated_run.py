"""A study on the simulated engine as rows, in this process and without a file: the laws put in are known."""

from pathlib import Path
from typing import Any

import polars as pl

from phaselaw.engines import module_for
from phaselaw.measure import measure
from phaselaw.metrics import rows_of
from phaselaw.records import Call
from phaselaw.runs import Run, normalised
from phaselaw.study import ModelEntry, Scenario, SimulatedBackend, Study
from phaselaw.study_axes import Axes, backends_at

SIZES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Parameters of the simulated models, in millions."""


def swept(law: dict[str, Any], *, seed: int = 1, repetitions: int = 3, sizes: Any = SIZES, **axes: Any) -> Study:
    """Models of several sizes under one law, swept along axes."""
    lengths = axes.get("prompt_tokens") or (16,)
    values = Axes.model_validate(axes)
    backend = SimulatedBackend(name="sim", kind="simulated", **({"call_noise": 0.01} | law))
    return Study(
        run_name="swept",
        gen_tokens=16,
        repetitions=repetitions,
        seed=seed,
        axes=values,
        scenarios=tuple(Scenario(name=f"prompt_{length}", prompt_tokens=length) for length in lengths),
        backends=backends_at(values, [backend]),
        models=tuple(ModelEntry(name=f"m{size:g}", kind="simulated", params_millions=size) for size in sizes),
    )


def run_of(study: Study) -> Run:
    """The study measured, as it is read for analysis."""
    sizes = {model.name: model.params_millions for model in study.models}
    threads = {backend.name: getattr(backend, "threads", None) for backend in study.backends}
    engines = {backend.name: module_for(backend.kind).create(backend) for backend in study.backends}
    rows = [
        row
        for event in measure(study, engines=engines)
        if isinstance(event, Call)
        for row in rows_of(
            event,
            prompt=None,
            params_millions_config=None,
            params_millions_measured=sizes[event.cell.model],
            threads=threads[event.cell.backend],
        )
    ]
    table = normalised(pl.DataFrame(rows, infer_schema_length=None), where="simulated")
    manifest = {"order": study.order, "run_id": "simulated"}
    return Run(path=Path("simulated"), rows=table, models=pl.DataFrame(), manifest=manifest)
