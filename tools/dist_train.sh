#!/usr/bin/env bash
# Train with several processes on one or several nodes.
#   tools/dist_train.sh CONFIG PROCESSES [options of train.py]
# With several nodes, set on each: NNODES, NODE_RANK, MASTER_ADDR (of node 0)
# and PORT.
# MAX_RESTARTS=N, with --resume, starts all processes again up to N times after
# one failed or a node was lost. Without a GPU they run on the CPU over gloo.
# examples:
#   tools/dist_train.sh configs/scfs_r50.py 8
#   NNODES=4 NODE_RANK=0 MASTER_ADDR=node0 tools/dist_train.sh CONFIG 8
set -euo pipefail

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
    usage
    exit
elif [ $# -lt 2 ]; then
    usage >&2
    exit 2
fi
CONFIG=$1
PROCESSES=$2
shift 2

exec "${PYTHON:-python}" "$(dirname "$0")/processes.py" "$PROCESSES" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
