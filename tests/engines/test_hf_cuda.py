"""The GPU's part of TR121's boundary studies in a short form: batch 8, 512 tokens, half precision, events, memory.

All marked gpu; they were not run where this was written, since no CUDA device was at hand.
"""

from pathlib import Path

import polars as pl
import pytest

from phaselaw.cli import main

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("ladder_cache"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]

STUDY = """
run_name: boundary-short
gen_tokens: {gen_tokens}
repetitions: 3
warmup_repetitions: 1
seed: 42
scenarios: [{{name: s, prompt_tokens: 100}}]
backends: [{{name: hf_gpu, kind: hf, device: cuda, dtype: {dtype}, batch_size: {batch}}}]
models: [{{name: models/tiny-gpt2, kind: hf}}, {{name: models/gpt2-5m, kind: hf}}]
"""


def measured(tmp_path: Path, *, dtype: str, batch: int, gen_tokens: int) -> Path:
    study, out = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(STUDY.format(dtype=dtype, batch=batch, gen_tokens=gen_tokens))
    assert main(["run", str(study), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(("batch", "gen_tokens"), [(1, 64), (8, 64), (1, 512)])
def test_a_cell_has_its_tokens_its_event_gap_and_its_peak(
    dtype: str, batch: int, gen_tokens: int, tmp_path: Path
) -> None:
    out = measured(tmp_path, dtype=dtype, batch=batch, gen_tokens=gen_tokens)
    rows = pl.read_csv(out / "metrics.csv").filter(~pl.col("is_warmup"))
    decode = rows.filter(pl.col("mode") == "kv_decode")
    assert set(rows["status"]) == {"ok"}
    assert set(decode["gen_tokens"]) == {batch * gen_tokens}
    assert (decode["cuda_event_ms"] / decode["latency_ms"] - 1).abs().median() < 0.1
    assert pl.read_csv(out / "analysis" / "cuda_event_gap_summary.csv").height > 0


def test_memory_is_predicted_beside_the_gpus_peak(tmp_path: Path) -> None:
    out = measured(tmp_path, dtype="fp16", batch=8, gen_tokens=64)
    peaks = pl.read_csv(out / "analysis" / "memory_peaks.csv")
    assert set(peaks["memory"]) == {"GPU"}
    assert peaks["error"].abs().max() < 0.5


def test_each_cell_has_a_wall_on_the_gpu_and_the_deep_narrow_model_waits(tmp_path: Path) -> None:
    out = measured(tmp_path, dtype="fp16", batch=1, gen_tokens=64)
    limit = pl.read_csv(out / "analysis" / "physical_limit.csv")
    assert set(limit["device"]) == {"cuda:0"}
    assert set(limit.filter(pl.col("model") == "models/gpt2-5m")["wall"]) == {"overhead"}
