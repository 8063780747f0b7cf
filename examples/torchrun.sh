#!/bin/bash
# VSRE as data parallel by torchrun alone:  GPUS=8 examples/torchrun.sh STAGES.yaml --out OUT --llm LLM ...
# On several machines, on each:  NODES=4 HEAD=host:29500 examples/torchrun.sh ...
# Without a GPU, two processes that gloo connects:  GPUS=2 ACCELERATE_USE_CPU=1 examples/torchrun.sh ...
set -euo pipefail

meet=(--standalone)
if [[ ${NODES:-1} -gt 1 ]]; then
    meet=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD")
fi
exec torchrun "${meet[@]}" --nproc-per-node "${GPUS:-8}" -m vsre train "$@"
