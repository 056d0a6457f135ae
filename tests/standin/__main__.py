"""Boards by hand: `python tests/standin up pi4`."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from standin import userland
from standin.board import Board, StandinError, purge

_PLAIN = {
    "down": Board.down,
    "kill-sshd": Board.kill_sshd,
    "start-sshd": Board.start_sshd,
    "kill-connections": Board.kill_connections,
    "freeze-connections": Board.freeze_connections,
    "thaw-connections": Board.thaw_connections,
    "change-host-key": Board.change_host_key,
    "restore-host-key": Board.restore_host_key,
    "free-disk": Board.free_disk,
}
_INJECTED: dict[str, Any] = {
    "throttled": lambda text: int(text, 16),
    "temperature_c": float,
    "frequency_khz": int,
    "governor": str,
}


def _injection(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, _INJECTED[name](value)
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r}: one of {', '.join(f'{key}=...' for key in _INJECTED)}") from None


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/standin", description="Raspberry Pi stand-ins for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make a board, anew where there is one")
    up.add_argument("name")
    up.add_argument("--model", choices=("4", "5"), default="4")
    up.add_argument("--port", type=int, default=0, help="a free one unless given")
    up.add_argument("--package", action="append", default=[], help="a pip requirement with its version, to have on it")
    inject = commands.add_parser("inject", help="change what its sensors say: throttled=0x50005 temperature_c=84.9")
    inject.add_argument("name")
    inject.add_argument("values", nargs="+", type=_injection)
    ssh = commands.add_parser("ssh", help="run a command on it, or a shell")
    ssh.add_argument("name")
    ssh.add_argument("remote", nargs=argparse.REMAINDER)
    fill = commands.add_parser("fill-disk", help="leave this much of its disk")
    fill.add_argument("name")
    fill.add_argument("free_kib", type=int, nargs="?", default=0)
    for command in _PLAIN:
        commands.add_parser(command).add_argument("name")
    commands.add_parser("purge", help="remove every board and what they are made from")
    return parser


def _up(name: str, model: str, port: int, packages: Sequence[str]) -> None:
    board = Board.up(name, model, port, packages)
    sys.stdout.write(
        f"{board.kind.title} as host {board.host} of {board.ssh_config}\n"
        f"try: ssh -F {board.ssh_config} {board.host} vcgencmd get_throttled\n"
    )


def main() -> None:
    if sys.argv[1:2] == ["_boot"]:  # how a board starts itself
        Board.find(Path(sys.argv[2]).name).boot()
    options = _options().parse_args()
    if options.command == "up":
        _up(options.name, options.model, options.port, options.package)
    elif options.command == "purge":
        purge()
    else:
        _drive(Board.find(options.name), options)


def _drive(board: Board, options: argparse.Namespace) -> None:
    if options.command == "inject":
        board.inject(**dict(options.values))
    elif options.command == "fill-disk":
        board.fill_disk(options.free_kib)
    elif options.command == "ssh":
        ssh = [userland.tool("ssh"), "-F", str(board.ssh_config), board.host, *options.remote]
        sys.exit(subprocess.run(ssh, check=False).returncode)
    else:
        _PLAIN[options.command](board)


if __name__ == "__main__":
    try:
        main()
    except StandinError as error:
        sys.exit(str(error))
