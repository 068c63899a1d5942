#!/usr/bin/env bash
# Train with several processes on one or several nodes.
#   tools/dist_train.sh CONFIG PROCESSES [options of train.py]
# On every node of several: NNODES, NODE_RANK, MASTER_ADDR (of node 0), PORT.
# MAX_RESTARTS=N, with --resume, starts all processes again up to N times after
# one failed or a node was lost. Without a GPU they run on the CPU over gloo.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
CONFIG=$1
PROCESSES=$2
shift 2

exec "${PYTHON:-python}" "$(dirname "$0")/processes.py" "$PROCESSES" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
