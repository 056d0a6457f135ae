"""The worker as a process: what it answers to whom, on a real pipe."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from toolchain import onboard
from toolchain.devices.local import WORKER
from toolchain.devices.package import packed
from toolchain.onboard import machine, model
from toolchain.onboard.channel import PROTOCOL

SHAPE = (4, 8)

SHARED = {
    "engine": "onnxruntime",
    "provider": "CPUExecutionProvider",
    "threads": 1,
    "options": {},
    "provider_options": {},
    "cores": [],
    "seed": 0,
}


def ask(*requests: object, program: Sequence[str] = WORKER, **variables: str) -> list[dict[str, Any]]:
    """All a worker answers to these requests (dicts, or raw text), before it ends well when its stdin does."""
    lines = "".join((request if isinstance(request, str) else json.dumps(request)) + "\n" for request in requests)
    ran = subprocess.run(
        program,
        input=lines.encode(),
        capture_output=True,
        env=os.environ | variables,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("path", sorted(Path(onboard.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_it_is_written_for_python_39_and_imports_nothing_but_the_standard_library_at_first(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name.partition(".")[0] for node in at_once if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        (node.module or "").partition(".")[0] for node in at_once if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert names <= {*sys.stdlib_module_names}
    everything = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    everything |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    outside = {name.split(".")[0] for name in everything} - {*sys.stdlib_module_names}
    assert outside <= {"numpy", "onnxruntime", "tensorrt", "tensorrt_rtx"}


def test_it_runs_alone_as_one_file(tmp_path: Path) -> None:
    alone = tmp_path / "agent.pyz"
    alone.write_bytes(packed())
    hello, described = ask({"op": "environment", **SHARED}, program=(sys.executable, "-I", str(alone), "worker"))
    assert hello["type"] == "hello"
    assert hello["protocol"] == PROTOCOL
    assert described["environment"]["engine"] == "onnxruntime"
    assert described["environment"]["emulator"] == ""


def test_the_one_file_is_small_and_always_the_same() -> None:
    assert len(packed()) < 64 << 10
    packed.cache_clear()
    before = packed()
    packed.cache_clear()
    assert packed() == before


def test_an_environment_is_read_below_the_system_root(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp\nCPU part : 0xd0b\nSerial : 10000000deadbeef\n",
        "proc/meminfo": "MemTotal:        8000000 kB\nMemFree: 1 kB\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "proc/sys/kernel/random/boot_id": "1234\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    answer = ask({"op": "environment", **SHARED}, MOSTOOL_SYSROOT=str(tmp_path))[1]
    found = answer["environment"]
    assert (found["cpu"], found["isa"]) == ("Cortex-A76", ["asimddp"])
    assert (found["board"], found["governor"]) == ("Raspberry Pi 5 Model B Rev 1.0", "ondemand")
    assert (found["memory_bytes"], found["boot_id"]) == (8000000 * 1024, "1234")
    assert "deadbeef" not in json.dumps(answer)
    assert os.uname().nodename not in (found["board"], found["os"], found["kernel"])


@pytest.mark.parametrize("module", ["onnxruntime", "numpy"])
def test_a_missing_engine_is_an_answer(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError('not on this device')")
    request = {"op": "memory", "model": str(tmp_path / "model.onnx"), "inputs": {}, **SHARED}
    answers = ask(request, PYTHONPATH=str(tmp_path))
    assert (answers[-1]["type"], answers[-1]["kind"]) == ("error", "engine")
    assert "not on this device" in answers[-1]["message"] or module == "numpy"


@pytest.mark.parametrize(
    "request_line",
    ["", "{", "[]", "null", '{"op":"shell"}', '{"op":["measure"]}', '{"op":"measure"}', '{"op":"run","provider":1}'],
)
def test_what_is_no_request_is_answered_and_the_next_one_served(request_line: str) -> None:
    answers = [answer for answer in ask(request_line, "{") if answer["type"] != "step"]
    assert [answer["type"] for answer in answers] == ["hello", "error", "error"]
    assert answers[1]["kind"] == "request"


def test_stdout_is_the_protocols_alone(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "import os\nprint('loud')\nos.write(1, b'louder')\nraise ImportError('no')"
    )
    answers = ask({"op": "environment", **SHARED}, PYTHONPATH=str(tmp_path))
    assert [answer["type"] for answer in answers] == ["hello", "error"]


def test_inputs_follow_their_description_and_seed() -> None:
    forms = {
        "ids": {"dtype": "int64", "shape": [2, 9], "low": 5, "high": 7},
        "mask": {"dtype": "bool", "shape": [3], "low": 1, "high": 2},
        "x": {"dtype": "float32", "shape": SHAPE, "low": -1.0, "high": 1.0},
    }
    made = model.made_inputs({"inputs": forms, "seed": 3})
    again = model.made_inputs({"inputs": dict(reversed(forms.items())), "seed": 3})
    assert {name: (str(array.dtype), array.shape) for name, array in made.items()} == {
        "ids": ("int64", (2, 9)),
        "mask": ("bool", (3,)),
        "x": ("float32", (4, 8)),
    }
    assert set(made["ids"].flat) == {5, 6}
    assert made["mask"].all()
    assert all((made[name] == again[name]).all() for name in forms)
    assert (model.made_inputs({"inputs": forms, "seed": 4})["x"] != made["x"]).any()


def test_waiting_is_zero_where_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSTOOL_SYSROOT", str(tmp_path))
    queue = machine.RunQueue()
    assert not queue.known
    assert queue.waited_ns() == 0
    queue.close()
