"""A study on the simulated engine as rows, in this process and without a file: the laws put in are known."""

from typing import Any

from phaselaw.study.file import put_to_axes
from phaselaw.study.model import Axes, ModelEntry, Scenario, SimulatedBackend, Study
from simulated_runs import simulated as run_of

__all__ = ["SIZES", "run_of", "swept"]

SIZES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Parameters of the simulated models, in millions."""


def swept(law: dict[str, Any], *, seed: int = 1, repetitions: int = 3, sizes: Any = SIZES, **axes: Any) -> Study:
    """Models of several sizes under one law, swept along axes."""
    lengths = axes.get("prompt_tokens") or (16,)
    backend = SimulatedBackend(name="sim", kind="simulated", **({"call_noise": 0.01} | law))
    study = Study(
        run_name="swept",
        gen_tokens=16,
        repetitions=repetitions,
        seed=seed,
        axes=Axes.model_validate(axes),
        scenarios=tuple(Scenario(name=f"prompt_{length}", prompt_tokens=length) for length in lengths),
        backends=(backend,),
        models=tuple(ModelEntry(name=f"m{size:g}", kind="simulated", params_millions=size) for size in sizes),
    )
    return put_to_axes(study, "swept")
