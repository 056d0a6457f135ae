"""What holds the house together, as tests: the layers, the types, the style, and a light start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
HEAVY = ["numpy", "onnx", "onnxruntime", "onnxscript", "scipy", "sklearn", "tokenizers", "torch"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
    ],
    ids=["layers", "style", "format", "types"],
)
def test_the_checks_of_the_house_pass(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("asked", ["--help", "--version"])
def test_answers_about_mostool_itself_load_nothing_heavy(asked: str) -> None:
    script = (
        "import contextlib, io, json, sys\n"
        "from toolchain.cli import main\n"
        "sys.argv = ['mostool', sys.argv[1]]\n"
        "shown = io.StringIO()\n"
        "code = 0\n"
        "try:\n"
        "    with contextlib.redirect_stdout(shown):\n"
        "        main()\n"
        "except SystemExit as stop:\n"
        "    code = stop.code or 0\n"
        "print(json.dumps([code, shown.getvalue(), sorted(sys.modules)]))\n"
    )
    done = run("-c", script, asked)
    assert done.returncode == 0, done.stderr
    code, shown, modules = json.loads(done.stdout)
    assert (code, bool(shown.strip())) == (0, True)
    assert sorted(set(HEAVY) & set(modules)) == []


def test_mostool_also_starts_as_a_module() -> None:
    done = run("-m", "toolchain", "--help")
    assert done.returncode == 0, done.stderr
    assert "mostool" in done.stdout


@pytest.mark.parametrize("module", ["errors", "files", "journal", "progress", "records", "space", "targets"])
def test_the_ground_floor_loads_nothing_heavy(module: str) -> None:
    done = run("-c", f"import sys, toolchain.{module}; print(*sorted({set(HEAVY)} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_no_file_of_the_package_is_too_long_to_read_top_to_bottom() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (CHECKOUT / "toolchain").rglob("*.py")}
    allowed = {
        CHECKOUT / "toolchain" / "profiling" / "worker.py": 600,  # travels to a device as one file
    }
    assert {str(path): length for path, length in lengths.items() if length > allowed.get(path, 400)} == {}


WITHOUT_TORCH = ("profile", "artifacts", "predict", "asked", "exchange", "check", "devices", "doctor", "report")


def test_what_measures_predicts_and_reports_knows_no_torch() -> None:
    """tests/installing runs the commands themselves without it."""
    extra = ["torch", "onnx", "onnxscript", "safetensors", "tokenizers", "sacrebleu", "pymoo"]
    loading = "; ".join(f"import toolchain.pipeline.{name}" for name in WITHOUT_TORCH)
    done = run("-c", f"import sys; {loading}; print(*sorted({set(extra)} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
