#!/usr/bin/env bash
# Everything that a machine with a CUDA device is wanted for, in one command: gpu.md and at most seven files beside it.
#
#   benchmarks/gpu.sh [OUT]                 into OUT (default: gpu-results), in at most 560 seconds
#   benchmarks/gpu.sh --seconds 300 OUT     in less time
#   benchmarks/gpu.sh --only larger OUT     one part or several: tests,models,host,ladder,batch8,gen512,larger
#   benchmarks/gpu.sh --dry OUT             the same steps, tiny, on a CPU
#
# The machine has Python 3.11 to 3.13, torch with CUDA and transformers, and needs no network. What else is missing comes
# from the wheels in .whl/ (benchmarks/gpu_wheels.sh), unpacked into a folder of its own: nothing there is changed.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "gpu.sh: there is no $python here; name one in PYTHON" >&2; exit 1; }
dry=()
for each in "$@"; do [ "$each" != --dry ] || dry=(--dry); done

work=$(mktemp -d "${TMPDIR:-/tmp}/phaselaw-gpu-XXXXXX")
trap 'rm -rf "$work"' EXIT
"$python" "$top/benchmarks/gpu_site.py" ${dry[@]+"${dry[@]}"} --wheels "${WHEELS:-$top/.whl}" --site "$work/site" || exit 1

export PYTHONPATH="$work/site:$top/src:$top/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export PHASELAW_CACHE="${PHASELAW_CACHE:-$work/cache}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
"$python" "$top/benchmarks/gpu_box.py" --work "$work" "$@"
