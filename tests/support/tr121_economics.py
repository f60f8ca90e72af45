"""The figures of money that TR121 prints (8.3 to 8.5), each with its unit in the last printed digit."""

from typing import NamedTuple

MODELS = {
    "20b": ("ollama", "gpt-oss-20b:latest"),
    "7b": ("ollama", "qwen2.5:7b"),
    "8b": ("ollama", "llama3.1:8b-instruct-q4_0"),
    "1b": ("ollama", "gemma3:1b-it-qat"),
    "270m": ("ollama", "gemma3:270m"),
    "gpu": ("hf_gpu_fp16", "models/gpt2-100m"),
    "cpu": ("hf_cpu_fp32", "models/gpt2-100m"),
}


class Capacity(NamedTuple):
    """A row of 8.3, for a billion tokens a month at $1.006 an hour."""

    tokens_per_s: float
    workers: float
    usd_per_1m: float
    usd_per_month: float


UNITS = Capacity(tokens_per_s=0.1, workers=0.01, usd_per_1m=0.001, usd_per_month=1)

CAPACITY = {
    "20b": Capacity(52.4, 7.36, 5.328, 5328),
    "7b": Capacity(141.3, 2.73, 1.978, 1978),
    "8b": Capacity(116.3, 3.32, 2.402, 2402),
    "1b": Capacity(309.2, 1.25, 0.904, 904),
    "270m": Capacity(654.6, 0.59, 0.427, 427),
    "gpu": Capacity(174.0, 2.22, 1.606, 1606),
    "cpu": Capacity(51.9, 7.44, 5.389, 5389),
}

DELTAS = [("20b", "7b", 3350, 4.63), ("7b", "1b", 1074, 1.48)]
"""8.3.1: dearer model, cheaper model, $ a month more (to 1), workers more (to 0.01)."""

THOUSAND_CHATS = {"20b": 2.05, "7b": 0.76, "270m": 0.16}
"""8.3.2: $ per 1,000 requests of 256 + 128 tokens, to 0.01."""

MIXES = ("chat_default", "agent_tool_step", "codegen_medium", "long_context_summary")
THOUSAND_REQUESTS = {
    "20b": (2.046, 2.898, 8.184, 12.276),
    "7b": (0.760, 1.076, 3.038, 4.557),
    "8b": (0.922, 1.307, 3.690, 5.534),
    "1b": (0.347, 0.492, 1.389, 2.083),
    "270m": (0.164, 0.232, 0.656, 0.984),
}
"""8.3.3: $ per 1,000 requests of each mix, to 0.001."""

COST_RATIO, P_SMALL, NEEDED = 2.69, 0.70, 1.88
"""8.3.4: gpt-oss-20b against qwen2.5:7b, to 0.01."""

LOADS = {1e8: (38.6, 0.1), 1e9: (385.8, 0.1), 1e10: (3858, 1)}
"""8.5: tokens a month to average tokens/s, with its unit."""

TIERS = {"on-demand": 1.978, "spot": 0.594, "reserved 3 y": 0.989}
"""8.5: $/1M of qwen2.5:7b, to 0.001."""
