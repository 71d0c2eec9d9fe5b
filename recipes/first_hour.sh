#!/usr/bin/env bash
# The first hour on a TPU or on GPUs: checks that a compiler can't make.
#
#     recipes/first_hour.sh tpu gs://bucket/first_hour
#     recipes/first_hour.sh mirrored runs/first_hour
#
# The data are scikit-learn's digits, enlarged. The output must be new. Flags of
# train_imagenet.py, such as --tpu=NAME --tpu_zone=ZONE, follow the two
# arguments. Each part prints what it checks. Only a real chip can also show
# that a TPU's topology is found by its name, that all hosts of a pod start, and
# how gs:// behaves under load. So far this ran only on a CPU, with one block of
# 8 channels instead of 1024/20:
#
#     recipes/first_hour.sh one runs/first_hour --batch_size 8 \
#       --image_size 28 --steps_per_epoch 5
set -euo pipefail
strategy=$1 output=$2
shift 2
train=(python "$(dirname "$0")/train_imagenet.py" --data digits
  --eval_split test --model 1024_20 --batch_size 256 --strategy "$strategy"
  --log_every 5 --notensorboard --epochs 2)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "== 1. The devices are found, and an update runs"
python -c "import tensorflow as tf; print(tf.config.list_logical_devices())"
"${train[@]}" --output "$output/plain" "$@"

echo "== 2. Images per second (log.csv; see recipes/results), Python's share"
"${train[@]}" --output "$output/calls" --steps_per_call 5 "$@"

echo "== 3. Memory: the largest batch that compiled"
"${train[@]}" --output "$output/large" --remat --batch_size 1024 \
  --steps_per_epoch 1 "$@"

echo "== 4. A stopped run saves, and the same command resumes it"
stopped=("${train[@]}" --output "$output/stopped" --epochs 4 "$@")
"${stopped[@]}" > "$log" 2>&1 &
until grep -q "Epoch 1:" "$log" || ! kill -0 $! 2> /dev/null; do sleep 0.2; done
kill -TERM $!
wait $! || echo "It ended with status $?; 143 is expected."
grep "Run the same command to resume" "$log"
"${stopped[@]}" 2>&1 | tee "$log"
grep -q "Resuming from step" "$log"

echo "== 5. Two runs are equal to the bit"
for name in once twice; do
  "${train[@]}" --output "$output/$name" --deterministic "$@"
done
python - "$output"/{once,twice}/log.csv << 'END'
import sys

import tensorflow as tf

# All columns except the times.
once, twice = (
    [row.split(",")[:7] for row in tf.io.gfile.GFile(path)]
    for path in sys.argv[1:]
)
sys.exit(0 if once == twice else "The two runs differ.")
END

echo "== 6. A profile for TensorBoard: compare the cycles with the compiler's"
"${train[@]}" --output "$output/profile" --tensorboard --profile_steps 4,5 "$@"
