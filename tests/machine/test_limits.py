"""A machine's limits: what stands between two measured sizes, and that they survive being kept."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaselaw.machine.limits import LIMITS_VERSION, Bandwidth, Clock, Compute, DeviceLimits, MachineLimits, Spread

MB = 1 << 20


def spread(value: float) -> Spread:
    return Spread(median=value, p25=value * 0.9, p75=value * 1.1, n=5)


def device(*rates: float) -> DeviceLimits:
    read = tuple(Bandwidth(working_set_bytes=4 * MB * 4**at, gb_per_s=spread(rate)) for at, rate in enumerate(rates))
    compute = (Compute(dtype="fp32", gflop_per_s=spread(100.0), library="numpy"),)
    return DeviceLimits(name="cpu", read=read, compute=compute, copy=read[-1])


def limits() -> MachineLimits:
    clock = Clock(resolution_ns=1, read_ns=40, watched_s=0.25, gap_p99_us=0.1, gap_max_us=50, taken_share=0.01)
    return MachineLimits(
        version=LIMITS_VERSION, threads=2, measured_at_unix=1.0, took_s=5.0, clock=clock,
        devices={"cpu": device(80, 40, 20), "cuda:0": device(1000, 3000)},
    )  # fmt: skip


def test_a_spread_is_the_median_and_the_quartiles_that_interpolate_linearly() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(median=2.5, p25=1.75, p75=3.25, n=4)
    assert Spread.of([7.0]) == Spread(median=7.0, p25=7.0, p75=7.0, n=1)


def test_at_a_measured_size_the_bandwidth_is_the_measured_one() -> None:
    cpu = device(80, 40, 20)
    assert [cpu.read_at(4 * MB), cpu.read_at(16 * MB), cpu.read_at(64 * MB)] == pytest.approx([80, 40, 20])


def test_between_two_sizes_it_is_linear_in_the_log_of_the_size() -> None:
    assert device(80, 40, 20).read_at(8 * MB) == pytest.approx(60)


@given(st.floats(1, 1e13))
def test_it_never_leaves_what_was_measured(size: float) -> None:
    rate = device(80, 40, 20).read_at(size)
    assert rate is not None
    assert 20 <= rate <= 80


@pytest.mark.parametrize(("size", "rate"), [(0, 80), (MB, 80), (1 << 40, 20)])
def test_outside_the_measured_sizes_it_is_the_nearest_one(size: float, rate: float) -> None:
    assert device(80, 40, 20).read_at(size) == rate


def test_what_was_not_measured_is_none() -> None:
    assert device(80).gflop_per_s("fp32") == 100
    assert device(80).gflop_per_s("bf16") is None
    assert DeviceLimits(name="x", read=(), compute=()).read_at(MB) is None


def test_a_device_is_found_by_the_name_that_an_engine_gives_it() -> None:
    assert limits().device(None) == limits().device("cpu") == limits().devices["cpu"]
    assert limits().device("cuda") == limits().device("cuda:0") == limits().devices["cuda:0"]
    assert limits().device("cuda:1") is None
    assert limits().device("mps") is None


def test_limits_come_back_from_json_as_they_were() -> None:
    assert MachineLimits.from_json(json.loads(json.dumps(asdict(limits())))) == limits()


@pytest.mark.parametrize("document", [None, {}, [], "x", {"version": LIMITS_VERSION}, {"version": 0}])
def test_anything_else_is_no_limits(document: object) -> None:
    assert MachineLimits.from_json(document) is None


def test_another_versions_document_is_no_limits() -> None:
    assert MachineLimits.from_json(asdict(limits()) | {"version": LIMITS_VERSION + 1}) is None
