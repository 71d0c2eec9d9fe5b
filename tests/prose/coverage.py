"""Lists the test of every command in the documents.

`running_test.py` runs those that are a `Run`, in this order: later commands
need the outputs of earlier ones.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Run:
    """Run unchanged, in a copy of the checkout with small data.

    Attributes:
        more: Flags that are appended to make it small.
        makes: A file or folder that must exist afterwards.
        given: Files that are copied first: from a path, to a path.
        tier: The markers of its test.
        needs: Required packages beyond the extra `dev`.
    """

    more: str = ""
    makes: str = ""
    given: tuple = ()
    tier: tuple = ("large",)
    needs: tuple = ()


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Covered by another test of the same script with other flags.

    Attributes:
        file: The test's.
        name: The test's.
    """

    file: str
    name: str


@dataclasses.dataclass(frozen=True)
class InCI:
    """Run by `.ci/run`, unchanged from the README."""


@dataclasses.dataclass(frozen=True)
class NotRun:
    """Not run by any test."""

    reason: str


_PEER = {"tier": ("peer", "large")}
_SHORT = "--epochs 1 --steps_per_epoch 2 --batch_size 4 --notensorboard"
# After only two updates, 8-bit predictions are unstable. Other formats keep
# their limits.
_ANY_RESULT = (
    "--min_agreement 0 --max_mean_difference 1 "
    "--max_difference 1 --max_accuracy_loss 1 --max_total_variation 1"
)
_PIP = "the index is not always there; .ci/run installs what it needs"
_SDK = "needs the Android SDK; tests/android compiles the app without it"
_DOCKER = "needs Docker; tests/serve/tf_serving_test.py has a stand-in"
_EXPORT = "python export/{} --model runs/mine/model.keras --output "
_IMAGES = " --images FOLDER"
_MACHINES = "a cluster of machines; the tests start its nodes on one"

COMMANDS = {
    # Weights, from a hub on this machine.
    "convmixer predict photo.jpg FOLDER --model 768_32 --top 3": (
        Run("--image_size 56")
    ),
    "convmixer predict photo.jpg --model 768_32": Run("--image_size 56"),
    "python export/convert_weights.py --source model.safetensors "
    "--destination model.weights.h5": Run(makes="model.weights.h5"),
    "python export/convert_weights.py --source convmixer.weights.h5 "
    "--destination convmixer.safetensors": Run(
        given=("model.weights.h5", "convmixer.weights.h5"),
        makes="convmixer.safetensors",
    ),
    "python export/convert_weights.py --source convmixer.pth.tar "
    "--destination convmixer.weights.h5": Elsewhere(
        "tests/prose/running_test.py", "test_a_checkpoint_of_pytorch"
    ),
    # Training.
    "python recipes/train_cifar10.py --data FOLDER --preset 25 "
    "--output runs/cifar10": Run(_SHORT, "runs/cifar10/model.keras"),
    "python recipes/finetune.py --data FOLDER --model 256_8 "
    "--output runs/mine": Run(
        "--epochs 1 --batch_size 4", "runs/mine/model.keras"
    ),
    "python recipes/benchmark_finetune.py --task digits": Elsewhere(
        "tests/recipes/benchmark_finetune_test.py",
        "test_all_ways_learn_what_is_easy",
    ),
    "python recipes/compile_for_chips.py --model 1536_20 "
    "--batch_sizes 48,64": Elsewhere(
        "tests/chips_test.py", "test_the_table_has_what_the_compiler_says"
    ),
    "convmixer phone PHOTOS --output mine": Elsewhere(
        "tests/cli/phone_test.py", "test_all_is_there"
    ),
    "convmixer push --model runs/mine --repository USER/REPOSITORY": Elsewhere(
        "tests/export/hub_repository_test.py", "test_the_command"
    ),
    "convmixer --help": Elsewhere(
        "tests/cli/commands_test.py", "test_help_comes_before_tensorflow"
    ),
    "python recipes/train_imagenet.py --data FOLDER --model 1536_20 "
    "--output runs/imagenet": Elsewhere(
        "tests/recipes/training_recipes_test.py",
        "test_imagenet_goes_through_kill_resume_and_evaluate",
    ),
    "python recipes/finetune.py --data FOLDER --model 512_16 "
    "--output runs/pretrained": Elsewhere(
        "tests/recipes/training_recipes_test.py",
        "test_finetune_starts_from_weights_and_from_a_run",
    ),
    "python recipes/evaluate.py --model runs/mine --data FOLDER": Run(
        makes="runs/mine/evaluation/confusion.png"
    ),
    "python recipes/evaluate.py --model runs/imagenet --data FOLDER": Elsewhere(
        "tests/recipes/training_recipes_test.py",
        "test_imagenet_goes_through_kill_resume_and_evaluate",
    ),
    "python recipes/compare.py --data FOLDER --epochs 1 --threads 1": Elsewhere(
        "tests/recipes/compare_test.py",
        "test_a_comparison_goes_on_where_it_was_stopped",
    ),
    "python recipes/compare.py --data FOLDER --output runs/trends --dim 64 "
    "--depth 4 --epochs 1 --steps_per_epoch 390 --trend patch_size=2,4,8 "
    "--trend kernel_size=3,5,9,16 --trend dim=32,64,128 "
    "--trend depth=2,4,8": Elsewhere(
        "tests/recipes/compare_test.py", "test_another_trend_is_added"
    ),
    "export TF_CONFIG='"
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
    "'": Elsewhere(
        "tests/training/processes_test.py", "test_two_workers_equal_one_process"
    ),
    # Looking.
    "python recipes/look_inside.py --model runs/cifar10 "
    "--images FOLDER --split test": Run(makes="runs/look_inside/costs.md"),
    "python recipes/segment.py --model runs/cifar10": Run(
        "--steps 5 --width 128", "runs/segment/segment.png"
    ),
    "pdoc -d google --no-show-source -o build/api convmixer_tf{,.analysis,"
    ".data,.export,.inference,.layers,.models,.preprocessing,.training,"
    ".weights}": Run(makes="build/api/convmixer_tf/models.html"),
    "jupyter execute --inplace recipes/tour.ipynb": Elsewhere(
        "tests/prose/notebook_test.py", "test_it_runs"
    ),
    "python recipes/show_augmentation.py --data FOLDER --augmentation imagenet "
    "--output sheet.png": Run("--image_size 64", "sheet.png"),
    # Export.
    _EXPORT.format("to_tflite.py") + "runs/mine --images FOLDER "
    "--calibration FOLDER --quantization float16 --quantization int8": Run(
        _ANY_RESULT, "runs/mine/convmixer_256_8_int8.tflite.json"
    ),
    _EXPORT.format("to_saved_model.py") + "runs/mine/saved_model" + _IMAGES: (
        Run(makes="runs/mine/saved_model/saved_model.pb")
    ),
    _EXPORT.format("to_tfhub.py") + "runs/mine/module" + _IMAGES: Run(
        makes="runs/mine/module/README.md"
    ),
    _EXPORT.format("to_onnx.py") + "runs/mine/model.onnx" + _IMAGES: Run(
        makes="runs/mine/model.onnx"
    ),
    "python export/verify.py runs/mine/model.keras runs/mine/model.onnx "
    "--images FOLDER --output report.json": Run(makes="report.json"),
    "python export/to_web.py --model model.keras "
    "--output export/web/public/model --images FOLDER": Run(
        _ANY_RESULT,
        "export/web/public/model/model.json",
        given=("runs/mine/model.keras", "model.keras"),
    ),
    # Classifying files.
    "convmixer predict photo.jpg": InCI(),
    "convmixer predict photo.jpg FOLDER --model runs/mine --top 3": Run(),
    "convmixer predict FOLDER --model model.tflite "
    "--labels labels.txt --format csv --output predictions.csv": Run(
        given=("runs/mine/convmixer_256_8_float16.tflite", "model.tflite"),
        makes="predictions.csv",
    ),
    "convmixer predict FOLDER --model mine/model_float16.tflite": Elsewhere(
        "tests/cli/commands_test.py", "test_predict"
    ),
    'find . -name "*.jpg" | convmixer predict --list - --format json': Run(),
    # The page.
    "cd export/web": Elsewhere(
        "tests/web/page_test.py", "test_it_finds_what_litert_finds"
    ),
    "npm ci": Elsewhere(
        "tests/web/page_test.py", "test_it_finds_what_litert_finds"
    ),
    "npm run build": Elsewhere(
        "tests/web/page_test.py", "test_it_finds_what_litert_finds"
    ),
    "npm run screenshot -- public/model photo.jpg picture.png": Elsewhere(
        "tests/web/page_test.py",
        "test_the_picture_in_the_readme_can_be_taken_again",
    ),
    "npm start": NotRun("a server; the tests start the same by Vite's API"),
    # Measuring.
    "taskset -c 0 python export/benchmark.py --model 256_8 --images FOLDER "
    "--split test --limit 10000 --calibration FOLDER "
    "--output artifacts.json": Elsewhere(
        "tests/export_scripts/benchmark_test.py", "test_every_kind"
    ),
    "taskset -c 0 python export/benchmark.py --peers --model 256_8 "
    "--images FOLDER --split test --limit 2000 --calibration FOLDER "
    "--batch_size 16 --turns 31 --output peers.json": Elsewhere(
        "tests/export_scripts/benchmark_test.py", "test_peers"
    ),
    "taskset -c 0 python export/benchmark.py --peers --model 1024_20.keras "
    "--images FOLDER --limit 20 --calibration FOLDER --calibration_limit 16 "
    "--batch_size 4 --turns 7 --output peers.json": Elsewhere(
        "tests/export_scripts/benchmark_test.py", "test_peers"
    ),
    "python export/plot_peers.py results/peers/*.json --output "
    "peers.png": Elsewhere(
        "tests/export_scripts/plot_peers_test.py",
        "test_it_draws_each_number_of_threads",
    ),
    "python recipes/benchmark_data.py --data FOLDER --split train": Run(
        "--rounds 1 --batches 3 --output data.json",
        "data.json",
        **_PEER,
        needs=("timm",),
    ),
    "convmixer map FOLDER --output predictions --model 768_32 "
    "--workers 2": Elsewhere(
        "tests/recipes/benchmark_map_test.py",
        "test_the_rows_are_the_same_whatever_dies",
    ),
    "convmixer map list.csv --output features --features float16": Elsewhere(
        "tests/inference/bulk_test.py", "test_features"
    ),
    "ray up cluster.yaml": NotRun(_MACHINES),
    'ray exec cluster.yaml "ray status"': NotRun(_MACHINES),
    'ray exec --tmux cluster.yaml "convmixer map s3://BUCKET/images '
    "--output s3://BUCKET/predictions --model 768_32 --workers 32 "
    '--address auto"': NotRun(_MACHINES),
    "ray attach --tmux cluster.yaml": NotRun(_MACHINES),
    "ray down cluster.yaml": NotRun(_MACHINES),
    "python recipes/benchmark_map.py --images FOLDER --output map.json": (
        Elsewhere("tests/recipes/benchmark_map_test.py", "test_it_measures")
    ),
    "python recipes/benchmark_map.py --images FOLDER --kill "
    "--output map_killed.json": Elsewhere(
        "tests/recipes/benchmark_map_test.py",
        "test_the_rows_are_the_same_whatever_dies",
    ),
    "taskset -c 0 python recipes/benchmark.py --clock cpu": Elsewhere(
        "tests/recipes/benchmark_test.py", "test_short_run_against_timm"
    ),
    "KERAS_BACKEND=jax python recipes/benchmark.py --device gpu "
    "--dtype bfloat16 --output gpu.json": Elsewhere(
        "tests/recipes/benchmark_test.py",
        "test_short_runs_on_other_backends",
    ),
    "python recipes/benchmark.py --against ../before --model 1024_20 "
    "--model 768_32 --model 256_8 --clock cpu --rounds 31": Elsewhere(
        "tests/recipes/benchmark_test.py",
        "test_another_checkout_takes_turns_with_this_one",
    ),
    # A phone.
    "python export/to_tflite.py --model 256_8 --output runs/phone "
    "--images FOLDER --split test --quantization float32": Run(
        makes="runs/phone/convmixer_256_8_float32.tflite.md"
    ),
    "python export/to_android.py "
    "--model runs/phone/convmixer_256_8_float32.tflite --image photo.jpg": Run(
        makes="export/android/app/src/main/assets/golden.json"
    ),
    "cd export/android": NotRun(_SDK),
    'sdkmanager "platforms;android-36" "build-tools;36.0.0" '
    '"platform-tools"': NotRun(_SDK),
    "gradle wrapper": NotRun(_SDK),
    "./gradlew test installDebug": NotRun(_SDK),
    # A server.
    "mkdir -p models/mine && cp -r runs/mine/saved_model models/mine/1": Run(
        makes="models/mine/1/saved_model.pb"
    ),
    "docker run -p 8500:8500 -p 8501:8501 "
    '-v "$PWD/models/mine:/models/mine" -e MODEL_NAME=mine '
    "tensorflow/serving": NotRun(_DOCKER),
    "curl http://localhost:8501/v1/models/mine": NotRun(_DOCKER),
    "curl --data-binary @photo.jpg http://127.0.0.1:8000/predict": Elsewhere(
        "tests/serve/server_test.py",
        "test_it_answers_as_the_model_until_it_is_told_to_stop",
    ),
    'curl -F file=@photo.jpg "http://127.0.0.1:8000/predict?top=2"': Elsewhere(
        "tests/serve/application_test.py", "test_a_form_is_taken"
    ),
    "locust -f export/serve/locustfile.py --host http://127.0.0.1:8000 "
    "--headless --users 8 --run-time 20s --images FOLDER": Elsewhere(
        "tests/serve/server_test.py", "test_locust_finds_no_failure"
    ),
    "python export/serve/server.py --model runs/mine/saved_model": Elsewhere(
        "tests/serve/server_test.py",
        "test_it_answers_as_the_model_until_it_is_told_to_stop",
    ),
    "python export/serve/server.py --model runs/mine/saved_model "
    "--port 8000": Elsewhere(
        "tests/serve/server_test.py",
        "test_it_answers_as_the_model_until_it_is_told_to_stop",
    ),
    # This replaces the packaged weights with poor ones, so later commands must
    # not need good ones.
    "python recipes/package_cifar10.py --run runs/cifar10 --data FOLDER": Run(
        "--overwrite", "convmixer_tf/weights/packaged/convmixer_256_8.md"
    ),
    # Quantization-aware training, in a separate environment.
    "python recipes/finetune_qat.py --model runs/mine/model.keras "
    "--data FOLDER --output runs/qat": Elsewhere(
        "tests/recipes/finetune_qat_test.py",
        "test_it_ends_in_a_file_that_is_verified",
    ),
    "python recipes/compare_qat.py --model runs/mine/model.keras "
    "--data FOLDER --eval_split test --output runs/compare_qat --threads 1": (
        NotRun(
            "twelve trainings; compare_qat_test.py tests its parts, and "
            "finetune_qat_test.py a training"
        )
    ),
    "python -m convmixer_tf.export.qat.worker FOLDER": Elsewhere(
        "tests/export/qat/worker_test.py",
        "test_training_lowers_the_loss_and_leaves_the_stem",
    ),
    "python recipes/train_digits.py": InCI(),
    "python recipes/train_digits.py --output runs/digits": Elsewhere(
        "tests/recipes/train_digits_test.py",
        "test_it_does_what_the_readme_says_and_again",
    ),
    "python -m build --wheel": Elsewhere(
        "tests/packaging_test.py",
        "test_wheel_holds_the_package_and_nothing_else",
    ),
    "python3 -m venv .venv && . .venv/bin/activate": NotRun(_PIP),
}
