"""``python -m phaselaw.engines.llamacpp_package SETTINGS``: llama.cpp's server as the package xllamacpp carries it.

``SETTINGS`` is a JSON object of llama-server's options without their dashes; what is left out stays at the server's
default. The server runs inside this process, which is started through `phaselaw.engines.llamacpp_guard`.
"""

import json
import sys
import threading
from typing import Any

NAMES = {
    "port": "port",
    "parallel": "n_parallel",
    "ctx-size": "n_ctx",
    "batch-size": "n_batch",
    "ubatch-size": "n_ubatch",
    "n-gpu-layers": "n_gpu_layers",
}
"""llama-server's options, and the package's names for them where one holds a number."""


def main(settings: dict[str, Any]) -> None:
    """Serve until the process is ended."""
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.model.path, params.model_alias, params.hostnames = settings["model"], {settings["alias"]}, [settings["host"]]
    for option, name in NAMES.items():
        if option in settings:
            setattr(params, name, settings[option])
    if "cache-type-k" in settings:
        kind = xllamacpp.ggml_type[f"GGML_TYPE_{settings['cache-type-k'].upper()}"]
        params.cache_type_k = params.cache_type_v = kind
    if "flash-attn" in settings:
        state = "ENABLED" if settings["flash-attn"] == "on" else "DISABLED"
        params.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{state}"]
    if "threads" in settings:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    server = xllamacpp.Server(params)
    threading.Event().wait()
    del server  # it ends with its last reference


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
