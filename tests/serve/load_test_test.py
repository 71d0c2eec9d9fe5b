"""export/serve/load_test.py on a small model, from its start to its picture."""

import json

import pytest
from PIL import Image

from convmixer_tf.export import export_saved_model
from convmixer_tf.models import ConvMixer
from tests.helpers import asymmetric_image
from tests.helpers import randomize
from tests.helpers import run_script

SCRIPT = "export/serve/load_test.py"


@pytest.mark.large
def test_a_load_test(tmp_path):
    shape = (16, 16, 3)
    model = randomize(ConvMixer(8, 1, 3, 4, input_shape=shape, classes=3))
    export_saved_model(model, tmp_path / "toy")
    for i, image in enumerate(asymmetric_image(20, 20, batch=3)):
        Image.fromarray(image).save(tmp_path / f"{i}.jpg")
    result = run_script(
        SCRIPT,
        f"--model={tmp_path}/toy",
        f"--images={tmp_path}",
        f"--output={tmp_path}/load.json",
        "--seconds=2",
        "--loads=0.5,10",
        "--server_flags=--max_pending=4 --top=2",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    record = json.loads((tmp_path / "load.json").read_text())
    phases = {x["phase"]: x for x in record["phases"]}
    for name, figures in phases.items():
        assert f"| {name} | " in result.stdout
        assert set(figures["statuses"]) <= {"200", "503"}, name
        assert figures["statuses"]["200"] > 0, name
    assert phases["one client"]["refused_per_second"] == 0
    assert phases["10 x capacity"]["statuses"]["503"] > 0
    assert 0 < phases["one client"]["p50_ms"] <= phases["one client"]["p99_ms"]
    for name, fate in record["junk"].items():
        assert set(fate) == {"due", str(fate["due"])}, name
    assert record["hang_ups_noticed"] > 0
    assert record["health_at_the_end"]["/health/ready"]["status"] == "ready"
    assert record["health_at_the_end"]["/health"]["pending"] == 0
    assert record["sigterm"]["status"] == 0
    with Image.open(tmp_path / "load.png") as picture:
        assert picture.width > 500


def test_a_file_that_can_not_be_written_is_said_at_once(tmp_path):
    result = run_script(
        SCRIPT,
        "--model=none",
        f"--images={tmp_path}",
        f"--output={tmp_path}/x.txt",
    )
    assert result.returncode == 1
    assert "Error: The file to write must end in .json" in result.stderr


@pytest.mark.large
def test_a_server_that_does_not_start_is_said(tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"never sent")
    result = run_script(
        SCRIPT,
        "--model=none",
        f"--images={tmp_path}",
        f"--output={tmp_path}/x.json",
    )
    assert result.returncode == 1
    assert "Error: The server has ended. Error: The model mus" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["0.jpg"]
