#!/usr/bin/env bash
# Test with several processes on one or several nodes.
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of test.py]
# With several nodes, set on each: NNODES, NODE_RANK, MASTER_ADDR (of node 0)
# and PORT.
# Without a GPU the processes run on the CPU over gloo.
# examples:
#   tools/dist_test.sh configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \
#     work_dirs/mask-rcnn_r50-fpn_1x_coco/epoch_12.pth 8
set -euo pipefail

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
    usage
    exit
elif [ $# -lt 3 ]; then
    usage >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
shift 3

exec "${PYTHON:-python}" "$(dirname "$0")/processes.py" "$PROCESSES" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
