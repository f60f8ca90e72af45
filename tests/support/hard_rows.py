"""Rows of a run with one law, to be made hard to read in many ways."""

import polars as pl

MODES = ("prefill", "kv_decode", "e2e_kv")


def rows(models: int = 4, scenarios: tuple[str, ...] = ("a", "b"), reps: int = 2) -> pl.DataFrame:
    """Latency is the square root of the parameters; one warmup, then ``reps`` calls a cell."""
    found = []
    for model in range(models):
        for scenario in scenarios:
            for rep in range(-1, reps):
                for at, mode in enumerate(MODES):
                    latency = (10.0 * 4**model) ** 0.5 * (1 + at) * (1 + 0.01 * rep)
                    found.append(
                        {
                            "backend": "x", "backend_kind": "hf", "model": f"m{model}", "scenario": scenario,
                            "mode": mode, "status": "ok", "latency_ms": latency, "params_millions": 10.0 * 4**model,
                            "tokens_per_s": 1e3 / latency, "is_warmup": rep < 0, "rep": max(rep, 0), "batch_size": 1,
                            "gen_tokens_target": 16,
                        }
                    )  # fmt: skip
    return pl.DataFrame(found)
