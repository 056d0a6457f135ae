"""The subcommands about devices: devices list, show, add, test, setup, and doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.help import Group
from toolchain.cli.options import FOLDER
from toolchain.cli.output import ProgressPrinter, plain, print_result, printable, screen_width, table

if TYPE_CHECKING:
    from toolchain.devices.checks import Check


_NARROW = 60
"""Columns below which what was found stands right behind the name of what was looked at."""
_MARKS = {"not there": "--"}
"""What stands before a check in place of its state: an extra that nobody needs yet is no matter to mend."""
_name = click.argument("name", shell_complete=completing.devices)


@app.group(cls=Group, short_help="the devices mostool knows: add, set up, try")
def devices() -> None:
    """The devices mostool knows: add one, set it up, try it.

    \b
    mostool devices list                                    # all of them, and where they are
    mostool devices add rpi --host pi@raspberrypi.local     # a board that ssh reaches
    mostool devices setup rpi                               # a runtime for it, without root
    mostool devices test rpi                                # whether it works at all
    """


@devices.command("list", short_help="every target, and where it is")
@common
def devices_list(json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """Every target, where its device is, and the file it comes from.

    \b
    mostool devices list            # a table
    mostool devices list --json     # for a program
    """
    from toolchain.pipeline.devices import where
    from toolchain.targets import find_targets, read_target

    project = Path()
    found = {name: (read_target(name, project), path) for name, path in find_targets(project).items()}
    rows = [[name, one.title, where(one), str(path)] for name, (one, path) in found.items()]
    names = ("id", "title", "where", "file")
    data = [dict(zip(names, row, strict=True)) for row in rows]
    print_result(plain(data), [], table(["device", "what", "where", "file"], rows), as_json=json, quiet=quiet)


@devices.command("show", short_help="one target with all its settings")
@_name
@common
def devices_show(name: str, json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """One target with all its settings.

    \b
    mostool devices show cpu                  # threads, provider, how it is measured
    mostool devices show rpi > rpi.json       # to compare or keep
    """
    import msgspec

    from toolchain.targets import read_target

    target = plain(read_target(name, Path()))
    lines = msgspec.json.format(msgspec.json.encode(target)).decode().splitlines()
    print_result(target, [], lines, as_json=json, quiet=quiet, verbatim=True)


@devices.command(
    "add",
    short_help="write a target for a device behind ssh",
    headings={"--host": "How it is reached", "--python": "On the device", "--fingerprint": "Whom to trust"},
)
@_name
@click.option("--host", required=True, help="As you would type it after ssh: a name, an address, an alias, USER@HOST.")
@click.option(
    "--like",
    shell_complete=completing.devices,
    help="The target whose runtime and protocol it takes. [the shipped one of its name, else rpi]",
)
@click.option("--user", help="Who logs in there. [as your ssh has it]")
@click.option("--port", type=click.IntRange(1, 65535), help="The port its ssh listens on. [as your ssh has it]")
@click.option("--identity", type=FOLDER, help="A private key. [as your ssh has it]")
@click.option("--ssh-config", type=FOLDER, help="A configuration of ssh. [your own ~/.ssh/config]")
@click.option("--python", help="The Python there, 3.9 or newer. [python3]")
@click.option("--folder", help="Where mostool may write there. [~/.cache/mostool]")
@click.option("--fingerprint", metavar="SHA256:...", help="The host key to trust, as the device itself shows it.")
@click.option("--accept-new-host-key", is_flag=True, help="Trust whichever key it shows, if none is known yet.")
@click.option("--force", is_flag=True, help="Write the file anew where there is one; what is not given stays.")
@common
def devices_add(name: str, json: bool, quiet: bool, **options: Any) -> None:
    """Write a target for a device that ssh reaches, once it is clear that it is the one that is meant.

    \b
    mostool devices add rpi --host raspberrypi.local --user pi           # shows the fingerprint of its host key
    mostool devices add rpi --host pi@raspberrypi.local --fingerprint SHA256:KEY    # trusts it
    mostool devices add kitchen --like rpi5 --host pi@192.168.1.20       # a second board, by another name
    """
    from toolchain.errors import UsageError
    from toolchain.pipeline.adding import Trust, add, own_path

    project = Path()
    if options["fingerprint"] and options["accept_new_host_key"]:
        raise UsageError("--fingerprint and --accept-new-host-key do not go together", hint="give the fingerprint")
    user, _, host = options["host"].rpartition("@")
    if user and options["user"]:
        raise UsageError("the user is given twice", hint="either --user or USER@HOST")
    identity, config = options["identity"], options["ssh_config"]
    asked = {
        "host": host,
        "user": options["user"] or user,
        "port": options["port"],
        "identity": identity and own_path(project, identity),
        "config": config and own_path(project, config),
        "python": options["python"],
        "folder": options["folder"],
    }
    given = {field: value for field, value in asked.items() if value or field == "host"}
    fingerprint = options["fingerprint"] or ""
    if fingerprint and not fingerprint.startswith("SHA256:"):
        fingerprint = f"SHA256:{fingerprint}"
    trust = Trust(fingerprint, options["accept_new_host_key"])
    added = add(project, name, given, like=options["like"] or "", trust=trust, force=options["force"])
    following = "devices setup" if added.target.runtime.engine == "onnxruntime" else "doctor --device"
    known = f"its host key {added.fingerprint} is trusted from now on"
    lines = [
        f"{added.file}: {added.target.title}" if added.written else f"{added.file} stays as it is",
        known if added.fingerprint else "its host key is one that your ssh knows",
        f"next: mostool {following} {name}",
    ]
    data = {
        "id": name,
        "file": str(added.file),
        "target": added.target,
        "fingerprint": added.fingerprint or None,
        "host_key": "stored" if added.fingerprint else "known",
    }
    print_result(plain(data), added.warnings, lines, as_json=json, quiet=quiet)


@devices.command("setup", short_help="install a runtime there, without root")
@_name
@click.option(
    "--from",
    type=click.Choice(["auto", "board", "host"]),
    default="auto",
    show_default=True,
    help="By the board's own pip, or as wheels from here; auto leaves alone what works.",
)
@click.option(
    "--version", metavar="X.Y.Z", help="Of onnxruntime. [this machine's, if it fits, else the newest that does]"
)
@click.option("--wheels", type=FOLDER, help="A folder with wheels of onnxruntime and numpy for the board.")
@common
def devices_setup(name: str, json: bool, quiet: bool, **options: Any) -> None:
    """Install what a device lacks to run models, into a folder of its own there, without root.

    \b
    mostool devices setup rpi                                     # what it lacks, from wherever it can be had
    mostool devices setup rpi --from host --version 1.22.1        # fetched here: the board has no internet
    mostool devices setup rpi --wheels wheels                     # neither has: from a folder of wheels
    """
    from toolchain.errors import UsageError
    from toolchain.pipeline.devices import setup
    from toolchain.targets import read_target

    if options["wheels"] and options["from"] == "board":
        raise UsageError("--wheels come from here, not from the board", hint="leave out --from board")
    project = Path()
    with ProgressPrinter(quiet=quiet) as listener:
        done = setup(
            read_target(name, project),
            project,
            options["from"],
            version=options["version"] or "",
            wheels=options["wheels"],
            listener=listener,
        )
    has = " and ".join(f"{one} {version}" for one, version in done.versions.items())
    origins = {"board": "by its own pip", "host": "from here", "folder": f"from {options['wheels']}"}
    told = f"{name} has {has} already" if done.origin == "there" else f"{name} has {has} now, {origins[done.origin]}"
    warnings = [f"{one} dies of an instruction this processor lacks (SIGILL); an older one works" for one in done.died]
    warnings += [f"{name}'s own pip could not: {done.pip_failed}"] if done.pip_failed else []
    data = {"device": name, "changed": done.origin != "there", "origin": done.origin, "versions": done.versions}
    lines = [printable(told), f"next: mostool doctor --device {name}"]
    print_result(plain({**data, "died": done.died}), warnings, lines, as_json=json, quiet=quiet)


@devices.command("test", short_help="whether a device works at all")
@_name
@common
def devices_test(name: str, json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """Whether a device works at all, in half a minute: reached, a small model computed right, and timed.

    \b
    mostool devices test rpi            # reached, computes right, timed
    mostool devices test rpi -v         # with every ssh command on stderr
    """
    from toolchain.errors import MostoolError
    from toolchain.pipeline.devices import NOISY, try_device
    from toolchain.targets import read_target

    project = Path()
    target = read_target(name, project)
    try:
        with ProgressPrinter(quiet=quiet) as listener:
            steps, noise = try_device(target, project, listener)
    except MostoolError as error:
        done = error.data if isinstance(error.data, list) else []
        _print_before_failure([f"ok  {step['name']}: {printable(step['found'])}" for step in done], quiet=quiet or json)
        raise
    lines = [*(f"ok  {step.name}: {printable(step.found)}, {step.seconds:.1f} s" for step in steps), f"{name}: works"]
    lines.append(f"next: mostool profile --device {name}")
    warnings = (
        [] if noise <= NOISY else [f"it is restless: {steps[-1].found}; mostool doctor --device {name} may say why"]
    )
    print_result(plain([step._asdict() for step in steps]), warnings, lines, as_json=json, quiet=quiet)


@app.command(short_help="what works here or on a device, and what does not")
@click.option("--device", shell_complete=completing.devices, help="Look at this target's device. [this machine]")
@common
def doctor(device: str | None, json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """What works here, or on a device, and how to mend the rest. Exit code 4 where a device is not ready, 1 for this
    machine.

    \b
    mostool doctor                     # this machine: libraries, clock, memory
    mostool doctor --device rpi        # a board: power, heat, runtime, each with its mend
    """
    from toolchain.pipeline.doctor import as_data, examine_device, examine_host, require_health
    from toolchain.targets import read_target

    project = Path()
    target = read_target(device, project) if device else None
    with ProgressPrinter(quiet=quiet) as listener:
        examined = examine_host(project, listener) if target is None else examine_device(target, project, listener)
    lines = _checks_in_words(examined.checks)
    if examined.failures:
        _print_before_failure(lines, quiet=quiet or json)
        require_health(examined)
    print_result(plain(as_data(examined)), [], lines, as_json=json, quiet=quiet)


def _print_before_failure(lines: Sequence[str], *, quiet: bool) -> None:
    """What was found out before a failure that is about to be raised, where a person reads it."""
    print_result(None, [], lines, as_json=False, quiet=quiet)


def _checks_in_words(checks: Sequence[Check]) -> list[str]:
    """A line for each check, and below it what would mend it."""
    marks = {check.state: _MARKS.get(check.state, check.state) for check in checks}
    states = max(map(len, marks.values()))
    width = screen_width()
    narrow = width is not None and width < _NARROW
    names = 0 if narrow else max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{marks[check.state]:<{states}}  {check.name:<{names}}  {printable(check.found)}".rstrip())
        if check.mend and check.state != "ok":
            lines.append(f"{'':<{states}}  {'':<{names}}  -> {printable(check.mend)}")
    return lines
