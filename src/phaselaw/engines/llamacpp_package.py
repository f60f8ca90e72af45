"""``python -m phaselaw.engines.llamacpp_package SETTINGS``: llama.cpp's server as the package xllamacpp carries it.

``SETTINGS`` is a JSON object with the keys of `phaselaw.engines.llamacpp_process.Settings`; what is null stays at the
server's default. The server runs inside this process, which is started through `phaselaw.engines.llamacpp_guard`.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any


def main(settings: dict[str, Any]) -> None:
    """Serve until the process is ended."""
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = [settings["host"]]
    params.port = settings["port"]
    params.n_parallel = settings["slots"]
    types = xllamacpp.ggml_type
    wanted = {
        "n_ctx": settings["context_length"],
        "n_batch": settings["batch"],
        "n_ubatch": settings["micro_batch"],
        "n_gpu_layers": settings["gpu_layers"],
    }
    if settings["kv_cache"] is not None:
        wanted["cache_type_k"] = wanted["cache_type_v"] = types[f"GGML_TYPE_{settings['kv_cache'].upper()}"]
    if settings["flash_attention"] is not None:
        state = "ENABLED" if settings["flash_attention"] else "DISABLED"
        wanted["flash_attn_type"] = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{state}"]
    for name, value in wanted.items():
        if value is not None:
            setattr(params, name, value)
    if settings["threads"] is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    server = xllamacpp.Server(params)
    threading.Event().wait()
    del server  # it ends with its last reference


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
