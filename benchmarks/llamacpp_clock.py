"""Do the client's clock and llama-server's agree on the decode rate, and what does being a client cost?

Starts a real llama-server (of PATH, else of the package xllamacpp) with a model and prints each call: the decode step
by the client's clock and by the server's own, how far they are apart, and TTFT less ``prompt_ms``, which is the cost
of being a client: the request, the wait for a slot, the first token's way back.

    python benchmarks/llamacpp_clock.py
    python benchmarks/llamacpp_clock.py --model models/gpt2-100m --tokens 512 --calls 10 --json

Exit 1 where a call that decodes for 300 ms or more is off by over 1 %. On a machine whose cores are all taken, the
client is woken late; a thread less than there are cores leaves it room.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from phaselaw.engines import llamacpp
from phaselaw.engines.llamacpp_process import find_server, nothing_to_start
from phaselaw.laws.served import LONG_MS
from phaselaw.records import Request
from phaselaw.study.model import LlamacppBackend, ModelEntry

AGREES = 0.01


class Clocks(NamedTuple):
    """One call by both clocks, in ms."""

    decode_ms: float
    step_client_ms: float
    step_server_ms: float
    client_side_ms: float
    """TTFT less the server's prompt time."""

    @property
    def off(self) -> float:
        """The server's step over the client's, less 1; the rates are off by as much the other way."""
        return self.step_server_ms / self.step_client_ms - 1

    @property
    def binding(self) -> bool:
        """Whether the call decodes for so long that the two must agree."""
        return self.decode_ms >= LONG_MS


def measured(model_name: str, *, threads: int, tokens: int, calls: int) -> Iterator[Clocks]:
    """The calls after one that warms up."""
    engine = llamacpp.create(LlamacppBackend(name="served", kind="llamacpp", threads=threads))
    try:
        model = engine.load(ModelEntry(name=model_name, kind="llamacpp"))
        for call in range(calls + 1):
            timing = model.generate(
                Request(
                    prompt=None, prompt_tokens=32, gen_tokens=tokens, batch_size=1, study_seed=42, seed=call, round=call
                )
            )
            served = timing.served
            assert served is not None and timing.kv_decode_ms is not None and timing.prefill_ms is not None
            if served.decode_step_ms_client is None or served.decode_step_ms_server is None:
                print("a call came in one piece: this client was woken too late to time it", file=sys.stderr)
            elif call:
                yield Clocks(
                    timing.kv_decode_ms,
                    served.decode_step_ms_client,
                    served.decode_step_ms_server,
                    served.ttft_ms - timing.prefill_ms,
                )
    finally:
        engine.close()


def main() -> int:
    """Print each call by both clocks; 1 where a binding one is off by over 1 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/gpt2-45m", help="a ladder model or a GGUF file (models/gpt2-45m)")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a call (default 256)")
    parser.add_argument("--calls", type=int, default=8, help="calls (default 8)")
    spare = max(1, (os.cpu_count() or 2) - 1)
    parser.add_argument("--threads", type=int, default=spare, help=f"the server's threads (default {spare})")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    if find_server(None) is None:
        sys.exit(nothing_to_start(None))
    found: list[Clocks] = []
    if not args.json:
        print(f"{'decode ms':>10} {'client step':>12} {'server step':>12} {'apart':>8} {'TTFT - prompt_ms':>17}")
    for each in measured(args.model, threads=args.threads, tokens=args.tokens, calls=args.calls):
        found.append(each)
        if not args.json:
            print(
                f"{each.decode_ms:10.1f} {each.step_client_ms:12.4f} {each.step_server_ms:12.4f} {each.off:+8.3%} "
                f"{each.client_side_ms:17.3f}",
                flush=True,
            )
    binding = [abs(each.off) for each in found if each.binding]
    held = bool(binding) and max(binding) <= AGREES
    said = {
        "calls": len(found),
        "calls_of_300_ms_or_more": len(binding),
        "worst_of_these": max(binding, default=None),
        "client_side_ms_median": median(each.client_side_ms for each in found),
        "held": held,
    }
    if args.json:
        print(json.dumps(said | {"each": [each._asdict() for each in found]}))
    elif not binding:
        print(f"no call decoded for {LONG_MS:g} ms: ask for more --tokens")
    else:
        print(
            f"{len(binding)} of {len(found)} calls decode for {LONG_MS:g} ms or more; the worst is off by "
            f"{max(binding):.3%}: {'held' if held else 'NOT held'}. Being a client costs "
            f"{said['client_side_ms_median']:.2f} ms before the first token (median)."
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
