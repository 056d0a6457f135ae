"""Files as every room writes them: whole or not at all, and named by what they contain."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from toolchain.errors import DeviceError, IntegrityError, MostoolError, UsageError

LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_REFUSED = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
)
_LEFT_S = 3600.0
"""No file takes so long to write: whose temporary name is older was left by a process that was killed."""


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into an error with a hint.

    Raises:
        UsageError: the place cannot be written to (permissions, a directory in the way).
        MostoolError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MostoolError(
                f"no space left to write {path}",
                hint="free some disk space and run the same command again; what was acknowledged is kept",
            ) from error
        if error.errno in _REFUSED:
            raise UsageError(
                f"cannot write {path}", why=os.strerror(error.errno), hint="choose another place with --out"
            ) from error
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds it becomes `path`, fsynced.

    For writers that take a file name (safetensors, onnx). On failure nothing is left behind.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        try:
            yield part
            descriptor = os.open(part, os.O_RDWR)
            try:
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(path)
            sync_folder(path.parent)
            LOG.info("wrote %s", path)
        finally:
            part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def sweep(folder: Path, older_than_s: float = _LEFT_S) -> None:
    """Remove the temporary files of `replacing` that processes which were killed have left in a folder.

    Where only the holder of a lock writes, whatever lies there is left over, however young.
    """
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # its writer has just renamed it, or the folder is read-only
            if time.time() - part.stat().st_mtime >= older_than_s:
                part.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; it goes with the process that holds it, however that ends.

    What killed processes had begun to write into its folder is swept.

    Raises:
        DeviceError: another process holds it.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceError(
                f"{path.parent} is in use by another mostool", hint="wait until it has finished, then run this again"
            ) from error
        sweep(path.parent)
        yield
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path | None:
    """Rename `path` to `<name>.<time>.old` beside it, so that a fresh start loses nothing; None where there is none."""
    if not path.exists():
        return None
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for attempt in range(100):
        aside = path.with_name(f"{path.name}.{stamp}{f'-{attempt}' if attempt else ''}.old")
        if not aside.exists():
            with disk_errors(path):
                path.rename(aside)
            return aside
    raise MostoolError(f"cannot move {path} aside", why="too many old copies", hint=f"remove {path.name}.*.old")


def inside(folder: Path, name: str) -> Path:
    """The regular file `name` of `folder`, refused where it would lead out of the folder.

    Raises:
        IntegrityError: absolute names, `..`, links, anything that is not a plain file of that folder.
    """
    path = folder / name
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or not name:
        raise IntegrityError(f"{name!r} would lead out of {folder}", hint="the folder was tampered with; get it again")
    try:
        for part in (path, *path.parents):
            if part == folder:
                break
            if part.is_symlink():
                raise IntegrityError(
                    f"{name!r} in {folder} is a link", hint="the folder was tampered with; get it again"
                )
        plain = path.is_file()
    except OSError as error:  # a name no file system takes, or a folder that may not be looked into
        raise IntegrityError(f"cannot look for {name[:80]!r} in {folder}", why=error.strerror or str(error)) from error
    if not plain:
        raise IntegrityError(f"{folder} lacks {name!r}", hint="the folder is incomplete; get or export it again")
    if path.stat().st_nlink > 1:
        raise IntegrityError(f"{name!r} in {folder} is a hard link", hint="copy the folder with plain files")
    return path


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a new file's bytes are safe only once its name is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
