"""What boards share: the tools of this machine, an unpacked arm64 userland, and a kernel that runs it."""

import contextlib
import fcntl
import functools
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from standin.fakes import VCGENCMD

ROOT = Path(os.environ.get("MOSTOOL_STANDIN", "/var/lib/mostool-standin"))
SUITE, PYTHON = "bookworm", "3.11"  # Raspberry Pi OS is made from this Debian
USER = "standin"

_SBIN = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_TOOLS = {"mmdebstrap": "mmdebstrap", "sshd": "openssh-server", "ssh": "openssh-client", "useradd": "passwd"}
_DEBS = (
    *("base-files", "bash", "coreutils", "dash", "findutils", "grep", "gzip", "hostname", "libc-bin", "libgcc-s1"),
    *("libstdc++6", "mawk", "procps", "python3", "python3-venv", "sed", "tar", "util-linux"),
)
_REMOVED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n", "var/cache", "etc/resolv.conf")
_LINKS = {"usr/bin/awk": "mawk"}  # what a package's script would have linked
PACKAGES = f"usr/local/lib/python{PYTHON}/dist-packages"

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTRY = _BINFMT / "mostool-aarch64"
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"  # whatever the ABI; programs and shared objects


class StandinError(RuntimeError):
    """A board could not be made or driven; the text says why."""


@functools.cache
def why_not() -> str:
    """Why this machine cannot host a board, in one line; empty where it can. Mounts binfmt_misc where it is not."""
    if sys.platform != "linux":
        return "a stand-in board needs Linux"
    if os.geteuid() != 0:
        return "a stand-in board needs root (chroot, mounts, an account)"
    for folder in (ROOT, *ROOT.parents):
        if folder.exists() and (folder.stat().st_uid != 0 or folder.stat().st_mode & 0o022):
            return f"sshd refuses a board below {folder}, where others than root can write; set MOSTOOL_STANDIN"
    if (missing := _missing()) and not _offered(missing):
        return f"a stand-in board needs {' and '.join(missing)}, which apt does not offer here"
    if subprocess.run(isolated("true"), capture_output=True, check=False).returncode:
        return "a stand-in board needs namespaces of its own, which this machine refuses"
    if not (_BINFMT / "register").exists():
        with contextlib.suppress(StandinError):
            run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
    return "" if (_BINFMT / "register").exists() else "a stand-in board needs binfmt_misc, which this kernel lacks"


def _missing() -> list[str]:
    """The packages of tools that are not here."""
    return [package for program, package in _TOOLS.items() if not shutil.which(program, path=_SBIN)]


def _offered(packages: Sequence[str]) -> bool:
    for update in (False, True):
        with contextlib.suppress(StandinError):
            if update:
                run("apt-get", "-qq", "update")
            run("apt-cache", "show", "--no-all-versions", *packages)
            return True
    return False


def _apt(*command: str, cwd: Path | None = None) -> None:
    """Have apt do something; once more with fresh lists where its own are too old, or not there."""
    try:
        run("apt-get", "-qq", *command, cwd=cwd)
    except StandinError:
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", *command, cwd=cwd)


def tool(name: str) -> str:
    """The path of a program, which may lie where only root looks."""
    if path := shutil.which(name, path=_SBIN):
        return path
    raise StandinError(f"there is no {name} on this machine")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program of this machine and return what it prints."""
    done = subprocess.run(
        [tool(str(command[0])), *map(str, command[1:])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "PATH": _SBIN},  # 1: start no daemon
        cwd=cwd,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1000:]
        raise StandinError(f"{command[0]} ended with status {done.returncode}: {said}")
    return done.stdout


def isolated(*command: str | Path) -> list[str]:
    """A command in namespaces that end with it: mounts, host name and processes."""
    return ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--", *map(str, command)]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process at a time makes what is shared."""
    ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(requirements: tuple[str, ...] = ()) -> dict[Path, str]:
    """Make what is missing. Returns the folders a board's files are linked from, and where in the board each goes."""
    if missing := _missing():
        _apt("install", "--yes", "--no-install-recommends", *missing)
    layers = {_base(): ""}
    if requirements:
        layers[_wheels(requirements)] = PACKAGES
    _emulate(ROOT / "base")
    return layers


def account() -> pwd.struct_passwd:
    """The account that sessions run as. sshd lets nobody in whose password is locked, and '*' does not lock it."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER)
    run("useradd", "--no-create-home", "--home-dir", f"/home/{USER}", "--shell", "/bin/bash", "--password", "*", USER)
    return pwd.getpwnam(USER)


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file anew: no hard link to it changes, and no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.rename(path)


def forget() -> None:
    """Remove all that `prepare` left, but for the packages of tools and the account."""
    with contextlib.suppress(OSError):
        if f"interpreter {ROOT}/" in _ENTRY.read_text():
            _ENTRY.write_text("-1")
    run("rm", "-rf", "--one-file-system", ROOT)


# -- the userland ----------------------------------------------------------------------------------------------------


def _made(folder: Path, recipe: object, make: Callable[[Path], None]) -> Path:
    """A folder that is expensive to make: kept while its stamp, written last, says it was made by this recipe."""
    stamp = folder.with_name(f"{folder.name}.stamp")
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()
    if not (folder.is_dir() and stamp.exists() and stamp.read_text() == key):
        stamp.unlink(missing_ok=True)
        run("rm", "-rf", "--one-file-system", folder)
        make(folder)
        replace(stamp, key)
    return folder


def _base() -> Path:
    """The files of every board. They are only unpacked: package scripts, emulated, take a quarter of an hour."""

    def make(base: Path) -> None:
        unpack = ("mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--architectures=arm64")
        run(*unpack, f"--include={','.join(_DEBS)}", SUITE, base)
        run("rm", "-rf", *(base / name for name in _REMOVED))
        for link, to in _LINKS.items():
            (base / link).symlink_to(to)
        replace(base / "usr/bin/vcgencmd", VCGENCMD, 0o755)
        for name in (PACKAGES, f"home/{USER}"):
            (base / name).mkdir(parents=True, exist_ok=True)
        _compile(base, "/", f"usr/lib/python{PYTHON}", "usr/lib/python3")

    return _made(ROOT / "base", (SUITE, _DEBS, _REMOVED, _LINKS, VCGENCMD, PACKAGES, USER, sys.version_info[:2]), make)


def _wheels(requirements: tuple[str, ...]) -> Path:
    """Python packages for a board, unpacked by this machine's pip."""

    def make(folder: Path) -> None:
        fit = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (36, 35, 34, 31, 28, 27, 26, 24, 17)]
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
        form = ("--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", *fit)
        run(*pip, *form, f"--target={folder}", *requirements)
        _compile(folder, f"/{PACKAGES}", ".")

    name = hashlib.sha256(repr(requirements).encode()).hexdigest()[:12]
    return _made(ROOT / f"packages-{name}", (requirements, PACKAGES, sys.version_info[:2]), make)


def _compile(folder: Path, seen_as: str, *below: str) -> None:
    """Bytecode, made here once where this Python is the boards': emulated, every import would compile anew."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON:
        compiler = [sys.executable, "-m", "compileall", "-qq", "-j", "0", "-s", str(folder), "-p", seen_as]
        subprocess.run([*compiler, *(str(folder / name) for name in below)], check=False)


# -- the kernel ------------------------------------------------------------------------------------------------------


def _emulate(base: Path) -> None:
    """See to it that this kernel runs the base's programs. A registration that works is left alone."""
    if _runs(base):
        return
    if _ENTRY.exists():
        _ENTRY.write_text("-1")
    # F: the kernel opens the emulator now, so that no chroot needs one. The newest registration is asked first.
    (_BINFMT / "register").write_text(f":{_ENTRY.name}:M::{_MAGIC}:{_MASK}:{_emulator()}:POF")
    if not _runs(base):
        raise StandinError("this kernel runs no arm64 program, though an emulator is registered")


def _runs(base: Path) -> bool:
    probe = [tool("chroot"), str(base), "/bin/true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _emulator() -> Path:
    """The one program that is needed of a large package."""
    emulator, folder = ROOT / "qemu-aarch64-static", ROOT / "download"
    if emulator.exists():
        return emulator
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _apt("download", "qemu-user-static", cwd=folder)
    unpack = [tool("dpkg-deb"), "--fsys-tarfile", str(next(folder.glob("*.deb")))]
    with subprocess.Popen(unpack, stdout=subprocess.PIPE) as package:
        with tarfile.open(fileobj=package.stdout, mode="r|") as archive:
            for member in archive:
                if member.name == f"./usr/bin/{emulator.name}" and (content := archive.extractfile(member)):
                    (folder / emulator.name).write_bytes(content.read())
                    break
        package.kill()
    (folder / emulator.name).chmod(0o755)
    (folder / emulator.name).rename(emulator)
    shutil.rmtree(folder)
    return emulator
