#!/bin/bash
# All that is measured on a GPU, in under 6 minutes: benchmarks/gpu.sh [FOLDER]
# Tables and log go to $OUT if it is set, else to FOLDER, else to benchmarks/out. Without CUDA: a smoke test of a minute.
cd "$(dirname "$0")/.." || exit 1
folder=${OUT:-${1:-benchmarks/out}}
mkdir -p "$folder"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
set -o pipefail
timeout -k 10 355 python3 benchmarks/gpu.py --folder "$folder" 2>&1 | tee "$folder/gpu.log"
