"""What a compiled program moves is counted right, and compiling works."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT
from tests.helpers import run_python

pytestmark = pytest.mark.peer

PROGRAM = """HloModule jit_f, entry_computation_layout={...}

%fused (param_0: bf16[4,8]) -> f32[8] {
  %param_0 = bf16[4,8]{1,0} parameter(0)
  ROOT %sum = f32[8]{0} reduce(%param_0), dimensions={0}
}

ENTRY %main (x: bf16[4,8]) -> f32[8] {
  %x = bf16[4,8]{1,0} parameter(0), metadata={op_name="x"}
  %one = bf16[] constant(1)
  %both = (bf16[4,8]{1,0}, u8[0]{0}) custom-call(%x, %one), \
custom_call_target="__cudnn$convForward"
  %y = bf16[4,8]{1,0} get-tuple-element(%both), index=0
  ROOT %z = f32[8]{0} fusion(%y), kind=kInput, calls=%fused
}
"""
COUNT = """
import json, sys
sys.path.insert(0, "recipes")
import gpu_program
print(json.dumps(gpu_program.kernels(sys.argv[1])))
"""


def test_bytes_of_kernels():
    pytest.importorskip("jax")
    printed = run_python(COUNT, PROGRAM, KERAS_BACKEND="jax")
    map_bytes = 4 * 8 * 2
    assert json.loads(printed.splitlines()[-1]) == [
        ["__cudnn$convForward", 2 * map_bytes + 2],
        ["fusion", map_bytes + 8 * 4],
    ]


def test_a_block_for_an_h200(tmp_path):
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        pytest.skip('needs `pip install "jax[cuda13]"`')
    path = tmp_path / "report.json"
    subprocess.run(
        [
            *(sys.executable, ROOT / "recipes" / "compile_for_gpu.py"),
            *("--model=16_2", "--batch_size=64", "--form=keras"),
            *("--form=native", "--form=pallas", f"--output={path}"),
        ],
        check=True,
        cwd=ROOT,
    )
    results = json.loads(path.read_text())["results"]
    moved = {(r["step"], r["form"]): r["maps_a_block"] for r in results}
    assert len(moved) == 6
    assert moved["infer", "pallas"] < moved["infer", "native"] - 2
    assert moved["train", "native"] < moved["train", "keras"] - 5
