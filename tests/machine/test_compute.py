"""FLOP/s: how a product's operations are counted, and when a larger one is tried."""

import time
from collections.abc import Callable

import pytest

from phaselaw.machine import probe


def product_that_takes(seconds: Callable[[int], float], tried: list[int]) -> Callable[[int], probe.Work]:
    def product(side: int) -> probe.Work:
        tried.append(side)
        return lambda: time.sleep(seconds(side))

    return product


def test_a_product_of_side_n_is_two_n_cubed_operations() -> None:
    spread = probe.fastest(product_that_takes(lambda _: 0.02, []), (1000,))
    assert spread.n == probe.REPEATS
    assert 2e9 / 0.04 / 1e9 < spread.median <= 2e9 / 0.02 / 1e9


def test_the_side_with_the_highest_rate_stands_and_a_long_product_ends_the_search() -> None:
    tried: list[int] = []
    probe.fastest(product_that_takes(lambda side: 0.02 if side == 512 else 0.001, tried), (256, 512, 1024))
    assert tried == [256, 512]


def test_a_library_without_a_fast_way_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TOO_LONG_S", 0.02)
    assert probe.fastest(product_that_takes(lambda _: 0.03, []), (256, 512)).n == 1


def test_the_processors_products_are_told_with_their_library() -> None:
    products = {each.dtype: each for each in probe.processor_products()}
    assert {"fp32", "fp64"} <= set(products)
    assert all(each.gflop_per_s.median > 0 for each in products.values())
    assert all(each.library.startswith(("numpy", "torch")) for each in products.values())


def test_torch_multiplies_in_every_format_a_study_can_ask_for() -> None:
    pytest.importorskip("torch")
    for dtype in probe.TORCH_DTYPES:
        probe.matrix_product(dtype, 64, device="cpu")()
