"""What TR121's scaling study means by its bare names, so that a study may say ``models: [models/gpt2-5m]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

_PARAMS_MILLIONS = {
    "hf": {
        "models/tiny-gpt2": 0.103,
        "models/gpt2-5m": 5.037,
        "models/gpt2-25m": 25.016,
        "models/gpt2-45m": 45.171,
        "models/gpt2-50m": 51.476,
        "models/gpt2-75m": 74.825,
        "models/gpt2-100m": 96.088,
    },
    "ollama": {
        "gemma3:270m": 268.1,
        "gemma3:1b-it-qat": 999.9,
        "qwen2.5:7b": 7600.0,
        "llama3.1:8b-instruct-q4_0": 8000.0,
        "gpt-oss-20b:latest": 20900.0,
    },
}

MODELS: Mapping[str, dict[str, Any]] = {
    name: {"name": name, "kind": kind, "params_millions": params}
    for kind, labels in _PARAMS_MILLIONS.items()
    for name, params in labels.items()
}
