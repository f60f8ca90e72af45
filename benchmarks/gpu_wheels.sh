#!/usr/bin/env bash
# Fill .whl/ with what a GPU machine without network may lack, for its interpreter and platform; then gpu.sh finds it.
#
#   benchmarks/gpu_wheels.sh                         Python 3.12, Linux x86_64
#   benchmarks/gpu_wheels.sh 3.11
#   ALSO='rich pytest' benchmarks/gpu_wheels.sh      and these, which that machine lacks as well
#   benchmarks/gpu_wheels.sh 3.13 manylinux_2_28_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64
#
# Versions are those of constraints.txt. What a machine for machine learning has is not among them (numpy, scipy,
# Jinja2 with PyTorch, pytest and so on); gpu_site.py says on that machine what is still missing. Wheels and tree together must
# stay within 64 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-3.12}
shift || true
platforms=("$@")
[ ${#platforms[@]} -gt 0 ] || platforms=(manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64)
most=$((64 * 1024 * 1024))
folder=${WHEELS:-.whl}

names=(polars polars-runtime-32 pydantic pydantic-core annotated-types typing-inspection typing-extensions platformdirs
  shtab)
read -ra also <<<"${ALSO:-}"

mkdir -p "$folder"
rm -f "$folder"/*.whl
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "$version" --implementation cp "${platforms[@]/#/--platform=}" \
  -c constraints.txt -d "$folder" "${names[@]}" ${also[@]+"${also[@]}"}

wheels=$(cat "$folder"/*.whl | wc -c)
tree=$( (git ls-files -coz --exclude-standard; find shared -type f -print0 2>/dev/null || true) |
  sort -zu | xargs -0 cat 2>/dev/null | wc -c)
printf '%s: %d wheels for Python %s, %d MiB; the tree %d MiB\n' \
  "$folder" "$(ls "$folder"/*.whl | wc -l)" "$version" $((wheels >> 20)) $((tree >> 20))
if [ $((wheels + tree)) -gt $most ]; then
  echo "gpu_wheels.sh: wheels and tree are $(((wheels + tree) >> 20)) MiB, over the 64 MiB that travel" >&2
  exit 1
fi
