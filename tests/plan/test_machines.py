"""What rates were measured on, as runs of ours and TR121's say it; and whether that is what was asked for."""

from typing import Any

import pytest
from rows import phases, run_of

from phaselaw.plan.replicas import CPU, Machine, machines_of

HOST = {"cpu_model": "c", "memory_bytes": 32e9}
RTX = {"name": "RTX 4080", "memory": "12282 MiB"}
ONE = Machine(accelerators=("NVIDIA H100",))
TR121S = {"platform": {"processor": "Intel"}, "nvml": {"name": "RTX 4080", "memory_total_mb": 12282.0}}


def on(kind: str, manifest: dict[str, Any], models: Any = (), **known: Any) -> Machine:
    return machines_of(run_of(phases(1, 2, backend_kind=kind, **known), models, manifest))["b"]


def test_a_gpu_that_only_tr121s_manifest_names_is_that_of_its_calls_with_a_peak() -> None:
    rows = [*phases(1, 2, gpu_peak_mb=90.0, backend="hf_gpu"), *phases(1, 2, backend="hf_cpu")]
    models = [{"model": "m", "kind": "hf", "device": device} for device in ("cpu", "cuda")]
    found = machines_of(run_of(rows, models, TR121S))
    assert found["hf_gpu"].accelerators == ("RTX 4080",) and found["hf_cpu"].accelerators == (CPU,)
    assert found["hf_gpu"].memory_bytes == pytest.approx(12.878e9, rel=1e-3)


def test_a_local_server_uses_its_hosts_gpus_or_else_its_cpu_and_of_a_remote_one_nothing_is_known() -> None:
    assert on("ollama", {"host": HOST | {"gpus": [RTX, RTX]}}).accelerators == ("RTX 4080", "RTX 4080")
    assert on("llamacpp", {"host": HOST | {"gpus": []}}) == Machine(accelerators=(CPU,), memory_bytes=32e9)
    far = {"engines": [{"name": "b", "settings": {"url": "http://box:11434"}}], "host": HOST}
    assert {on("ollama", far), on("openai", {"host": HOST}), on("ollama", {})} == {Machine()}


def test_the_table_of_models_says_on_which_device_one_in_process_ran() -> None:
    models = [{"backend": "b", "model": "m", "kind": "hf", "device": "cuda:0"}]
    assert on("hf", {"host": HOST | {"gpus": [RTX, RTX]}}, models).accelerators == ("RTX 4080",)


@pytest.mark.parametrize(("device", "expected"), [("cuda", ("RTX 4080",)), ("cuda:1", ("A100",)), ("cuda:2", ())])
def test_of_several_gpus_it_is_the_one_whose_number_the_device_has(device: str, expected: tuple[str, ...]) -> None:
    models = [{"backend": "b", "model": "m", "kind": "hf", "device": device}]
    gpus = [RTX, {"name": "A100", "memory": "80 GiB"}]
    assert on("hf", {"host": HOST | {"gpus": gpus}}, models).accelerators == expected


@pytest.mark.parametrize(
    ("machine", "asked", "count", "expected"),
    [
        (ONE, "H100", 1, True), (ONE, "A100", 1, False),
        (ONE, "H100", 2, False), (Machine(accelerators=(CPU,)), "H100", 1, False),
        (Machine(), "H100", 4, True),
    ],
)  # fmt: skip
def test_only_what_was_used_has_its_price(machine: Machine, asked: str, count: int, expected: bool) -> None:
    assert machine.used(asked, count) is expected
