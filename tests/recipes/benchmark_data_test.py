"""recipes/benchmark_data.py; the documents' tests run it beside timm."""

from tests.helpers import run_script
from tests.helpers import write_images


def test_too_few_images_for_a_batch(tmp_path):
    write_images(tmp_path / "data" / "train", ("a", "b"), 3, 8)
    result = run_script(
        "recipes/benchmark_data.py",
        f"--data={tmp_path / 'data'}",
        f"--output={tmp_path / 'data.json'}",
    )
    assert result.returncode == 1
    assert "must have at least 64 images. Received: 6" in (
        result.stdout + result.stderr
    )
    assert not (tmp_path / "data.json").exists()
