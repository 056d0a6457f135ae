"""Completion: the protocol that shells speak, the scripts they load, and a real one where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_project import Made, call, command, environment, require

from toolchain import search as searching
from toolchain.cli import completing
from toolchain.cli.recipes import find_recipes
from toolchain.cli.search import _OBJECTIVES
from toolchain.supernet.families import declaration

SHELLS = ("bash", "zsh", "fish")


def offered(folder: Path, typed: str) -> list[str]:
    """What bash is offered where the last word of a line is being typed; `dir` and `file` for paths."""
    words = typed.split(" ")
    done = subprocess.run(
        command(),
        cwd=folder,
        env=environment(
            folder, _MOSTOOL_COMPLETE="bash_complete", COMP_WORDS=typed.strip(), COMP_CWORD=str(len(words) - 1)
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    kinds = [line.partition(",") for line in done.stdout.splitlines() if line]
    return [name if kind == "plain" else kind for kind, _, name in kinds]


def test_commands_options_and_names_are_completed(made: Made) -> None:
    assert offered(made.root, "mostool sea") == ["search"]
    assert offered(made.root, "mostool devices te") == ["test"]
    assert offered(made.root, "mostool search --warm") == ["--warm-start"]
    assert offered(made.root, "mostool export --precision int8") == ["int8", "int8-static"]
    assert offered(made.root, "mostool profile --device q") == ["quick"]
    assert offered(made.root, "mostool devices show rpi") == ["rpi", "rpi4", "rpi5"]
    assert offered(made.root, "mostool search --run wo") == ["words", "dir"]
    assert offered(made.root, "mostool verify bun") == [f"bundles/{made.bundle.name}", "dir"]
    assert offered(made.root, "mostool train --config laptop-m") == ["laptop-mlm", "file"]
    assert offered(made.root, "mostool config --origin devices a") == ["add"]


def test_a_mistake_on_the_line_is_no_reason_to_complain(made: Made) -> None:
    assert offered(made.root, "mostool serach --la") == []
    assert offered(made.root, "mostool search --nonesuch 5 --dev") in ([], ["--device"])
    (settings := made.root / "mostool.toml").write_text("[search\n")
    try:
        assert offered(made.root, "mostool sea") == ["search"]
    finally:
        settings.unlink()


def test_names_of_other_rooms_are_theirs() -> None:
    assert set(completing.SEARCHERS) == set(searching.SEARCHERS)
    assert set(completing.OBJECTIVES) == set(_OBJECTIVES)
    assert set(completing.SPACES) == {name for one in ("bert", "translation") for name in declaration(one).SPACES}
    assert [item.value for item in completing.recipes(None, None, "")][:-1] == list(find_recipes())  # type: ignore[arg-type]


def test_a_shell_does_not_wait_for_heavy_imports(tmp_path: Path) -> None:
    code = "import sys, toolchain.cli; toolchain.cli.main([]); print(sorted(sys.modules), file=sys.stderr)"
    typed = {"COMP_WORDS": "mostool profile --device c", "COMP_CWORD": "3", "_MOSTOOL_COMPLETE": "bash_complete"}
    line, given = [sys.executable, "-c", code], environment(tmp_path, **typed)
    done = subprocess.run(line, cwd=tmp_path, env=given, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,cpu\n"
    for heavy in ("torch", "numpy", "onnx", "onnxruntime", "rich", "toolchain.pipeline"):
        assert f"'{heavy}'" not in done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_says_how_it_is_installed(tmp_path: Path, shell: str) -> None:
    told = require(call(tmp_path, "completion", shell))
    assert "_MOSTOOL_COMPLETE" in told.out
    assert told.out.splitlines()[-1].startswith("# to have it in every new shell: ")
    assert f"mostool completion {shell}" in told.out.splitlines()[-1]
    data = call(tmp_path, "completion", shell, "--json").data
    assert data["script"].strip() in told.out
    assert data["install"] in told.out


_ASKS = {
    "bash": (
        'source ./script; COMP_WORDS=(mostool profile --device q); COMP_CWORD=3; _mostool_completion "$0" q --device; '
        'echo "${COMPREPLY[@]}"'
    ),
    "zsh": "autoload -Uz compinit; compinit -u -d dump; source ./script; print ${_comps[mostool]}",
    "fish": 'source ./script; complete -C "mostool profile --device q"',
}
_SAYS = {"bash": "quick", "zsh": "_mostool_completion", "fish": "quick"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(made: Made, tmp_path: Path, shell: str) -> None:
    """Where it is installed: bash and fish complete a device; zsh, which does so at a prompt only, takes the script."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "targets").mkdir()
    shutil.copy(made.root / "targets" / "quick.toml", tmp_path / "targets")
    (tmp_path / "script").write_text(require(call(tmp_path, "completion", shell)).out)
    path = tmp_path / "bin"
    path.mkdir()
    (path / "mostool").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m toolchain "$@"\n')
    (path / "mostool").chmod(0o755)
    variables = environment(tmp_path, HOME=str(tmp_path))
    variables["PATH"] = f"{path}:{variables['PATH']}"
    variables["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": []}[shell]
    done = subprocess.run(
        [shell, *quiet, "-c", _ASKS[shell], "mostool"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == _SAYS[shell], done
