import json

from PIL import Image

from tests.helpers import call_script


def test_it_draws_each_number_of_threads(tmp_path):
    paths = []
    for threads in (1, 2):
        names = {"Keras predict_on_batch": 4.0, "ONNX, onnxruntime": 2.0}
        run = {
            "threads": threads,
            "model": "1024_20",
            "artifacts": [
                {"artifact": name, "wall_milliseconds": value}
                for name, value in names.items()
            ],
        }
        paths.append(tmp_path / f"{threads}.json")
        paths[-1].write_text(json.dumps(run))
    output = tmp_path / "peers.png"
    result = call_script("export/plot_peers.py", *paths, f"--output={output}")
    assert result.returncode == 0, result.stderr
    with Image.open(output) as picture:
        assert picture.width > 500


def test_it_needs_results(tmp_path):
    output = tmp_path / "peers.png"
    result = call_script("export/plot_peers.py", f"--output={output}")
    assert result.returncode == 1
    assert "JSON files of `benchmark.py --peers`" in result.stderr
    assert not output.exists()
