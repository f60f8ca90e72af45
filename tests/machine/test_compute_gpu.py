"""A GPU's limits: each kind of device is measured once. torch's part is a stand-in but for the test marked gpu."""

import time

import pytest

from phaselaw.machine import probe
from phaselaw.machine.limits import Compute, Spread

pytest.importorskip("torch")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three devices of two kinds, as a stand-in for torch's; what was measured of them."""

    asked: list[str] = []
    spread = Spread.of([1.0])
    monkeypatch.setattr(probe, "gpu_names", lambda: ["big", "big", "small"])
    monkeypatch.setattr(probe, "free_gpu_bytes", lambda device: 1 << (40 if device != "cuda:2" else 27))
    monkeypatch.setattr(probe, "gpu_traffic", lambda *_, **__: lambda passes: time.sleep(1e-5))  # noqa: ARG005
    monkeypatch.setattr(probe, "SAMPLE_S", 1e-4)

    def products(device: str, sides: tuple[int, ...]) -> list[Compute]:
        del sides
        asked.append(device)
        return [Compute(dtype="fp16", gflop_per_s=spread, library="torch")]

    monkeypatch.setattr(probe, "torch_products", products)
    return asked


def test_devices_of_one_name_are_measured_once(measured: list[str]) -> None:
    found = probe.gpu_limits()
    assert measured == ["cuda:0", "cuda:2"]
    assert found["cuda:0"] is found["cuda:1"]
    assert found["cuda:2"].name == "small"
    assert len(found["cuda:0"].read) == len(probe.SIZES_BYTES)
    assert [point.working_set_bytes for point in found["cuda:2"].read] == [4 << 20, 8 << 20, 16 << 20, 32 << 20]
    assert [found[device].copy.working_set_bytes for device in ("cuda:0", "cuda:2")] == [
        probe.SIZES_BYTES[-1],
        32 << 20,
    ]


def test_a_device_without_room_has_its_products_and_no_rate_that_was_not_measured(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(probe, "free_gpu_bytes", lambda _: 1 << 20)
    found = probe.gpu_limits()["cuda:0"]
    assert (found.read, found.copy) == ((), None)
    assert found.compute and measured


@pytest.mark.parametrize(("copy", "copied"), [(False, []), (True, [(1 << 20) // 4 // 2] * 3)])
def test_what_moves_a_working_set_touches_it_and_waits_once_for_the_device(
    copy: bool, copied: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, torch.cuda.synchronize a stand-in that counts."""
    import torch

    waits, sums, copies = [], [], []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(torch, "sum", lambda numbers: sums.append(numbers.numel()))
    really = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda to, source: copies.append(to.numel()) or really(to, source))
    probe.gpu_traffic(1 << 20, device="cpu", copy=copy)(3)
    assert len(waits) == 1
    assert copies == copied
    assert sums == ([] if copy else [(1 << 20) // 4] * 3)


def test_a_rate_counts_the_bytes_of_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SAMPLE_S", 0.02)
    spread = probe.gpu_rate(10**6, lambda passes: time.sleep(0.005 * passes)).gb_per_s
    assert 1e6 / 0.01 / 1e9 < spread.median <= 1e6 / 0.005 / 1e9


@pytest.mark.gpu
def test_on_cuda_the_devices_limits_are_measured() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    limits = probe.gpu_limits()["cuda:0"]
    rates = {each.dtype: each.gflop_per_s.median for each in limits.compute}
    assert limits.read[-1].gb_per_s.median > 50
    assert limits.copy.gb_per_s.median > 50
    assert rates["fp16"] > rates["fp32"] > 0
