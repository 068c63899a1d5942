#!/usr/bin/env bash
# Train on a Slurm cluster, one task a GPU.
#   [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=9 SRUN_ARGS=...] [REQUEUE=1] \
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]
# With REQUEUE=1 it is a batch job: 2 minutes (NOTICE=120) before the time
# limit the run is saved and queued again; then it resumes exactly, until it
# has ended.
# examples:
#   tools/slurm_train.sh gpu scfs configs/scfs_r50.py work_dirs/scfs_r50
#   GPUS=32 REQUEUE=1 tools/slurm_train.sh gpu scfs CONFIG WORK_DIR
set -euo pipefail

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
if [[ ${1:-} =~ ^(-h|--help)$ ]]; then
    usage
    exit
elif [ $# -lt 4 ]; then
    usage >&2
    exit 2
fi
WORDS=("$@")
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
shift 4
if [[ $CONFIG != mmscfs::* && ! -f $CONFIG ]]; then
    echo "error: no config file '$CONFIG' below $PWD" >&2
    exit 2
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
# Saved, as mmscfs/engine/resume/preemption.py says it; or asked to end by
# USR1 or TERM before the first step, when there is nothing to save.
TRY_AGAIN=' 75 138 143 '
# Slurm runs a copy of this file, from another folder.
export MMSCFS_TOOLS=${MMSCFS_TOOLS:-$(cd "$(dirname "$0")" && pwd)}

RESOURCES=(
    -p "$PARTITION"
    --job-name="$JOB_NAME"
    --gres=gpu:"$GPUS_PER_NODE"
    --ntasks="$GPUS"
    --ntasks-per-node="$GPUS_PER_NODE"
    --cpus-per-task="${CPUS_PER_TASK:-9}"
)
TRAIN=(
    "${PYTHON:-python}" -u "$MMSCFS_TOOLS/train.py" "$CONFIG"
    --work-dir="$WORK_DIR" --launcher=slurm "$@"
)

# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
case ${REQUEUE:-} in
'')
    exec srun "${RESOURCES[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "${TRAIN[@]}"
    ;;
job) ;; # inside the batch job: below
*)
    mkdir -p "$WORK_DIR"
    export REQUEUE=job
    exec sbatch "${RESOURCES[@]}" --requeue --open-mode=append \
        --signal=USR1@"${NOTICE:-120}" --output="$WORK_DIR/slurm_%j.log" \
        ${SRUN_ARGS:-} "$0" "${WORDS[@]}"
    ;;
esac

# train.py takes a checkpoint that the user named at first, then the newest.
if [[ " $* " != *' --resume'* ]]; then
    TRAIN+=(--resume)
fi
code=0
# A task that has saved waits for the others: none is killed as they end.
srun --cpus-per-task="${CPUS_PER_TASK:-9}" --kill-on-bad-exit=0 --wait=60 \
    "${TRAIN[@]}" || code=$?
# A job that was canceled is no longer running, and stays canceled.
if [[ $TRY_AGAIN == *" $code "* ]] &&
    [[ $(scontrol show job "$SLURM_JOB_ID") == *JobState=RUNNING* ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
