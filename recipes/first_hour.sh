#!/usr/bin/env bash
# The first hour on a TPU or on GPUs: what no compiler can show.
#
#     recipes/first_hour.sh tpu gs://bucket/first_hour
#     recipes/first_hour.sh mirrored runs/first_hour
#
# It needs no data but scikit-learn's digits, enlarged. Put the rest of the
# flags, such as --tpu=NAME --tpu_zone=ZONE, behind the two.
set -euo pipefail
export folder strategy=$1 output=$2
folder=$(dirname "$0")
shift 2

train() {  # The name of the run, then flags.
  python "$folder/train_imagenet.py" --data digits --eval_split test \
    --model 1024_20 --batch_size 256 --strategy "$strategy" --log_every 5 \
    --notensorboard --output "$output/$1" --epochs 2 "${@:2}"
}

echo "== 1. The devices are found, and an update runs"
python -c "import tensorflow as tf; print(tf.config.list_logical_devices())"
train plain "$@"

echo "== 2. Images a second: log.csv, against recipes/results; Python's share"
train calls --steps_per_call 5 "$@"

echo "== 3. Memory: the largest batch that compiled, and one that did not"
train large --remat --batch_size 1024 --steps_per_epoch 1 "$@"

echo "== 4. Told to stop, it saves; the same command goes on from there"
export -f train
timeout 90 bash -c 'train stopped --epochs 20 "$@"' bash "$@" || true
train stopped --epochs 20 "$@"

echo "== 5. Twice the same, to the bit (GPUs)"
train once --deterministic "$@"
train twice --deterministic "$@"

echo "== 6. Cycles by operation, for TensorBoard, against the compiler's"
train profile --tensorboard --profile_steps 4,5 "$@"
