"""The simulated engine keeps its law: what goes in is what the times show."""

import math
from statistics import correlation, mean, stdev
from time import perf_counter

import pytest

from phaselaw.engines import simulated
from phaselaw.errors import EngineError
from phaselaw.records import Request, Timing
from phaselaw.study.model import ModelEntry, SimulatedBackend

QUIET = {"call_noise": 0.0}


def ask(**changes) -> Request:
    wanted = {"prompt": None, "prompt_tokens": 9, "gen_tokens": 8, "batch_size": 1}
    return Request(**wanted | {"study_seed": 42, "seed": 1, "round": 0} | changes)


def load(*, params: float | None = 25.0, layers: int | None = 4, name: str = "m", **law) -> simulated.SimulatedModel:
    backend = SimulatedBackend(name="law", kind="simulated", **law)
    return simulated.create(backend).load(
        ModelEntry(name=name, kind="simulated", params_millions=params, n_layer=layers)
    )


def step_of(timing: Timing) -> float:
    return timing.kv_decode_ms / timing.gen_tokens_raw


def log_steps(model: simulated.SimulatedModel, requests: list[Request]) -> list[float]:
    return [math.log(step_of(model.generate(request))) for request in requests]


def test_a_step_is_overhead_plus_parameters_and_depth_by_their_exponents() -> None:
    model = load(overhead_ms=2.0, params_ms=0.5, params_exponent=0.5, depth_exponent=1.0, **QUIET)
    assert step_of(model.generate(ask())) == pytest.approx(2.0 + 0.5 * 5.0 * 4)


def test_a_prefill_takes_its_number_of_steps_and_a_decode_one_a_token() -> None:
    timing = load(overhead_ms=2.0, params_ms=0.0, prefill_steps=1.5, **QUIET).generate(ask(gen_tokens=8))
    assert timing.prefill_ms == pytest.approx(3.0)
    assert timing.kv_decode_ms == pytest.approx(16.0)
    assert timing.gen_tokens_raw == 8


def test_a_model_of_unknown_size_has_the_stated_defaults() -> None:
    unknown, stated = load(params=None, layers=None), load(params=100.0, layers=12)
    assert unknown.info == stated.info
    assert unknown.info.params_millions_measured == 100.0


def test_the_same_request_takes_the_same_time_and_another_call_another() -> None:
    assert load().generate(ask(seed=1)) == load().generate(ask(seed=1))
    assert load().generate(ask(seed=1)) != load().generate(ask(seed=2))


def test_the_noise_of_calls_has_the_stated_deviation_of_the_logarithm() -> None:
    logs = log_steps(load(call_noise=0.1), [ask(seed=seed) for seed in range(2000)])
    assert stdev(logs) == pytest.approx(0.1, rel=0.1)
    assert mean(logs) == pytest.approx(math.log(6.0), abs=0.01)


def test_the_noise_of_a_round_is_the_same_for_its_calls_and_models() -> None:
    law = {"round_noise": 0.1} | QUIET
    one, other = load(name="one", **law), load(name="other", **law)
    rounds = [ask(round=number) for number in range(500)]
    assert log_steps(one, rounds) == log_steps(other, rounds)
    assert stdev(log_steps(one, rounds)) == pytest.approx(0.1, rel=0.15)


def test_the_noise_of_a_run_is_the_same_for_all_calls_of_a_replicate_and_all_models() -> None:
    law = {"run_noise": 0.1} | QUIET
    one, other = load(name="one", **law), load(name="other", **law)
    runs = [ask(replicate=number) for number in range(500)]
    assert log_steps(one, runs) == log_steps(other, runs)
    assert step_of(one.generate(ask(replicate=3, seed=1))) == step_of(one.generate(ask(replicate=3, seed=2)))
    assert stdev(log_steps(one, runs)) == pytest.approx(0.1, rel=0.15)


def test_each_model_has_a_noise_of_its_own_in_each_replicate() -> None:
    law = {"model_run_noise": 0.1} | QUIET
    one, other = load(name="one", **law), load(name="other", **law)
    runs = [ask(replicate=number) for number in range(500)]
    assert stdev(log_steps(one, runs)) == pytest.approx(0.1, rel=0.15)
    assert abs(correlation(log_steps(one, runs), log_steps(other, runs))) < 0.15


def test_the_rounds_of_another_replicate_have_a_noise_of_their_own() -> None:
    law = load(round_noise=0.1, **QUIET)
    one, other = ([ask(round=number, replicate=which) for number in range(500)] for which in (0, 1))
    assert abs(correlation(log_steps(law, one), log_steps(law, other))) < 0.15


def test_a_model_is_off_the_law_by_its_own_scatter_in_every_call_of_a_study() -> None:
    models = [load(name=f"m{index}", model_scatter=0.2, **QUIET) for index in range(500)]
    firsts = [log_steps(model, [ask(seed=1), ask(seed=2, round=3)]) for model in models]
    assert all(one == other for one, other in firsts)
    assert stdev(first for first, _ in firsts) == pytest.approx(0.2, rel=0.15)
    assert log_steps(models[0], [ask(study_seed=43)]) != [firsts[0][0]]


def test_only_the_first_prefill_after_a_load_is_cold() -> None:
    model = load(cold_start_ms=500.0, **QUIET)
    cold, warm = model.generate(ask()), model.generate(ask())
    assert cold.prefill_ms - warm.prefill_ms == pytest.approx(500.0)
    assert cold.kv_decode_ms == warm.kv_decode_ms


def test_a_share_of_calls_stops_early_and_says_so() -> None:
    model = load(early_stop_rate=0.3)
    timings = [model.generate(ask(seed=seed, gen_tokens=64)) for seed in range(1000)]
    stopped = [timing for timing in timings if timing.done_reason == "stop"]
    assert len(stopped) / 1000 == pytest.approx(0.3, abs=0.05)
    assert all(1 <= timing.gen_tokens_raw < 64 for timing in stopped)
    assert {timing.gen_tokens_raw for timing in timings if timing.done_reason == "length"} == {64}


def test_an_engine_that_never_stops_early_gives_no_reason() -> None:
    assert load().generate(ask()).done_reason is None


def test_a_share_of_calls_fails() -> None:
    model, failed = load(failure_rate=0.2), 0
    for seed in range(1000):
        try:
            model.generate(ask(seed=seed))
        except EngineError as error:
            failed += error.kind == "simulated"
    assert failed / 1000 == pytest.approx(0.2, abs=0.04)


def test_in_real_time_a_call_takes_as_long_as_it_says_and_else_none() -> None:
    law = {"overhead_ms": 5.0, "params_ms": 0.0} | QUIET
    took = {}
    for real_time in (True, False):
        model, begun = load(real_time=real_time, **law), perf_counter()
        timing = model.generate(ask())
        took[real_time] = (perf_counter() - begun) * 1e3
    assert took[True] >= timing.prefill_ms + timing.kv_decode_ms == pytest.approx(46.0)
    assert took[False] < took[True] / 2


def test_a_simulation_lacks_nothing_and_says_what_it_is() -> None:
    backend = SimulatedBackend(name="law", kind="simulated", params_exponent=0.7)
    assert simulated.lacking(backend, [ModelEntry(name="any", kind="simulated")]) == []
    said = simulated.create(backend).describe()
    assert (said.kind, said.name, said.settings["params_exponent"]) == ("simulated", "law", 0.7)
    assert load().info.family == "simulated"


def test_a_decode_step_grows_with_its_sequences_and_with_the_context_that_each_has() -> None:
    model = load(overhead_ms=2.0, params_ms=0.0, sequence_ms=0.5, context_ms=0.01, **QUIET)
    timing = model.generate(ask(batch_size=4, prompt_tokens=100, gen_tokens=3))
    assert timing.decode_steps_ms == pytest.approx([2 + 4 * (0.5 + 0.01 * context) for context in (100, 101, 102)])
    assert timing.kv_decode_ms == pytest.approx(sum(timing.decode_steps_ms))


def test_a_prefill_grows_with_its_tokens_and_with_their_pairs() -> None:
    law = {"overhead_ms": 2.0, "params_ms": 0.0, "prefill_steps": 1.0, "prompt_ms": 0.1, "prompt_pair_ms": 0.001}
    timing = load(**law, **QUIET).generate(ask(batch_size=2, prompt_tokens=50))
    assert timing.prefill_ms == pytest.approx(2 + 2 * (0.1 * 50 + 0.001 * 50**2))


def test_threads_shorten_the_part_that_is_not_serial() -> None:
    law = {"overhead_ms": 1.0, "params_ms": 1.0, "params_exponent": 1.0, "serial_share": 0.2}
    took = {n: step_of(load(params=10.0, threads=n, **law, **QUIET).generate(ask())) for n in (None, 1, 4)}
    assert took == {None: pytest.approx(11.0), 1: pytest.approx(11.0), 4: pytest.approx(1 + 10 * (0.2 + 0.8 / 4))}
