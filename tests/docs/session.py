"""The shell session of a page: one bash in one fresh folder, given the blocks one after the other."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from fake_board import FakeBoard
from made_project import DEVICE

from docs.blocks import Block
from toolchain.targets import shipped_folder

_DONE = "--- the block is done"
_HASTE = re.search(r"^\[measure\].*", DEVICE, re.MULTILINE | re.DOTALL)


class Session:
    """A bash with `set -e`, and what was printed by its last block.

    `folder` is where it works, `aside` what the page does not see: its home, a pretend board, the blocks as files.
    """

    def __init__(self, folder: Path, aside: Path) -> None:
        self.folder, self.printed = folder, ""
        self._aside, self._blocks = aside, 0
        self._board: FakeBoard | None = None
        for each in (folder, aside / "home"):
            each.mkdir(parents=True)
        own = Path(sys.executable).parent
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MOSTOOL_")}
        self._bash = subprocess.Popen(
            [shutil.which("bash") or "bash", "--noprofile", "--norc", "-s"],
            cwd=folder,
            env=kept
            | {
                "PATH": f"{aside / 'bin'}{os.pathsep}{own}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(aside / "home"),
                "XDG_CONFIG_HOME": str(aside / "home" / ".config"),
                "OMP_NUM_THREADS": "1",
                "NO_COLOR": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self._tell("set -e -o pipefail")

    def mark(self, marks: Iterable[str]) -> None:
        """What the comments above a block ask for; `project` is the caller's."""
        for mark in marks:
            kind, _, name = mark.partition(" ")
            match kind:
                case "board":
                    self._board = self._board or FakeBoard(self._aside / "board")
                    bin_ = self._aside / "bin"
                    if not bin_.exists():
                        bin_.symlink_to(self._board.bin)
                case "hasty":
                    self._hasten(name)
                case _ if re.fullmatch(r"MOSTOOL_\w+=\S*", mark):
                    self._tell(f"export {mark}")
                case "catalogues":
                    self._tell(stand_in(self._aside))
                case "project":
                    pass  # the caller's
                case _:
                    raise AssertionError(f"no such mark: {mark!r}; tests/docs/README.md lists them")

    def run(self, block: Block) -> None:
        """Carry out a block; AssertionError with what was printed where a command of it fails."""
        self._blocks += 1
        path = self._aside / f"block-{self._blocks}.{block.language}"
        path.write_text(block.text)
        self._tell(f'. "{path}" </dev/null' if block.language == "sh" else f'python "{path}" </dev/null')
        self._tell(f'echo; echo "{_DONE}"')
        said = []
        for line in _output(self._bash):
            if line.rstrip("\n") == _DONE:
                break
            said.append(line)
        else:
            code = self._bash.wait()
            raise AssertionError(f"{block.where}: a command failed with exit code {code}\n{''.join(said)}")
        self.printed = "".join(said)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        for stream in (self._bash.stdin, self._bash.stdout):
            if stream is not None:
                _close(stream)
        if self._board is not None:
            self._board.end_everything()

    def _hasten(self, name: str) -> None:
        """Let a target measure in haste and with one thread, by a file of the page's project: its figures are no one's
        business here."""
        own = self.folder / "targets" / f"{name}.toml"
        source = own if own.exists() else shipped_folder("targets") / f"{name}.toml"
        assert _HASTE is not None
        text, _, _ = source.read_text().partition("[measure]")
        own.parent.mkdir(exist_ok=True)
        own.write_text(re.sub(r"^threads = \d+", "threads = 1", text, flags=re.MULTILINE) + _HASTE[0])

    def _tell(self, line: str) -> None:
        assert self._bash.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it said, and why, is read by `run`
            self._bash.stdin.write(f"{line}\n")
            self._bash.stdin.flush()


def stand_in(aside: Path) -> str:
    """What the shell is told, so that made pairs stand in for `--data system` of a settings file."""
    names = ("boats", "bread", "maps", "stones", "clocks", "birds", "lamps", "coats")
    pairs = [f"{first} and {second} {count}" for first in names for second in names for count in range(10)]
    for name, texts in (("en", pairs), ("de", [text.upper() for text in pairs])):
        (aside / f"pairs.{name}").write_text("".join(f"{text}\n" for text in texts))
    return f'export MOSTOOL_TRAIN_DATA="{aside / "pairs.en"}{os.pathsep}{aside / "pairs.de"}"'


def _output(bash: subprocess.Popen[str]) -> IO[str]:
    assert bash.stdout is not None
    return bash.stdout


def _close(stream: IO[str]) -> None:
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def missing(expected: str, printed: str) -> list[str]:
    """The lines without figures of an expected output that were not printed; columns may be of other widths."""
    said = {_bare(line) for line in printed.splitlines()}
    lines = [_bare(line) for line in expected.splitlines()]
    return [line for line in lines if line and not re.search(r"\d|\.\.\.", line) and line not in said]


def _bare(line: str) -> str:
    return " ".join(re.sub(r"-{3,}", "---", line).split())
