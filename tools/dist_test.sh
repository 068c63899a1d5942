#!/usr/bin/env bash
# Test with several processes on one or several nodes.
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of test.py]
# On every node of several: NNODES, NODE_RANK, MASTER_ADDR (of node 0), PORT.
# Without a GPU the processes run on the CPU over gloo.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
shift 3

exec "${PYTHON:-python}" "$(dirname "$0")/processes.py" "$PROCESSES" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
