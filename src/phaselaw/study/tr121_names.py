"""What TR121's scaling study means by its bare names, so that a study may say ``models: [models/gpt2-5m]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaselaw.ladder.spec import LADDER, PREFIX

SCENARIOS: Mapping[str, dict[str, Any]] = {
    name: {"name": name, "prompt": prompt}
    for name, prompt in {
        "micro": "Hello",
        "short": "Summarize RLHF in one sentence.",
        "medium": "Explain how backpressure works in an inference service and when to enable queueing.",
    }.items()
}

BACKENDS: Mapping[str, dict[str, Any]] = {
    "hf_cpu_fp32": {"name": "hf_cpu_fp32", "kind": "hf", "device": "cpu", "dtype": "fp32"},
    "hf_gpu_fp16": {"name": "hf_gpu_fp16", "kind": "hf", "device": "cuda", "dtype": "fp16"},
    "ollama": {"name": "ollama", "kind": "ollama", "options": {"temperature": 0, "top_p": 1}},
}

_OLLAMA_PARAMS_MILLIONS = {
    "gemma3:270m": 268.1,
    "gemma3:1b-it-qat": 999.9,
    "qwen2.5:7b": 7600.0,
    "llama3.1:8b-instruct-q4_0": 8000.0,
    "gpt-oss-20b:latest": 20900.0,
}

MODELS: Mapping[str, dict[str, Any]] = {
    **{
        f"{PREFIX}{model.name}": {
            "name": f"{PREFIX}{model.name}",
            "kind": "hf",
            "params_millions": round(model.params / 1e6, 3),
        }
        for model in LADDER
    },
    **{
        name: {"name": name, "kind": "ollama", "params_millions": params}
        for name, params in _OLLAMA_PARAMS_MILLIONS.items()
    },
}
