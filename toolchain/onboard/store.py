"""Files by their sha256: sent once, never half there, never taken for something else."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Callable

_SPARE_BYTES = 8 << 20
_KEPT_S = 30 * 86400.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class StoreError(Exception):
    """Something cannot be kept. `kind`: disk or sha256."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def free_bytes(folder: str) -> int:
    """What a user who is not root may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Store:
    """The folder `blobs` under an agent's root."""

    def __init__(self, root: str) -> None:
        self.folder = os.path.join(root, "blobs")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._sweep(root)

    def path(self, sha256: str) -> str:
        if not _SHA256.fullmatch(sha256):
            raise StoreError("sha256", f"{sha256!r:.80} is no sha256")
        return os.path.join(self.folder, sha256)

    def find(self, sha256: str) -> str | None:
        """The file's path where it is here, and whole: its content is hashed again, for a disk may lie."""
        path = self.path(sha256)
        try:
            with open(path, "rb") as stream:
                digest = hashlib.sha256()
                for chunk in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(chunk)
        except OSError:
            return None
        if digest.hexdigest() != sha256:
            return None
        with contextlib.suppress(OSError):  # a disk may be there to be read alone
            os.utime(path)
        return path

    def put(self, sha256: str, size: int, read: Callable[[], bytes]) -> str:
        """Keep `size` bytes, which `read` gives piece by piece; the path.

        Raises:
            StoreError: there is no room, or the content is not what its sha256 says.
            OSError: it cannot be written for another reason.
            Nothing is kept then. All of the content has been read all the same, so that what follows it can be.
        """
        content = _pieces(size, read)
        try:
            return self._keep(sha256, size, content)
        except (StoreError, OSError) as fault:
            for _ in content:
                pass
            if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError("disk", os.strerror(fault.errno)) from fault
            raise

    def _keep(self, sha256: str, size: int, content: Iterator[bytes]) -> str:
        path = self.path(sha256)
        free = free_bytes(self.folder)
        if free < size + _SPARE_BYTES:
            raise StoreError("disk", f"{free >> 20} MiB are free, {size >> 20} MiB to be stored")
        part = f"{path}.{os.getpid()}.part"  # its own: another agent may be given the same file at the same time
        digest, came = hashlib.sha256(), 0
        try:
            with open(part, "wb", buffering=0) as stream:
                for chunk in content:
                    digest.update(chunk)
                    came += len(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[stream.write(view) :]
                os.fsync(stream.fileno())
            if came != size or digest.hexdigest() != sha256:
                raise StoreError("sha256", f"what came for {sha256[:12]} has another checksum")
            os.replace(part, path)
        finally:
            self._remove(part)  # wherever it failed, or the connection broke
        return path

    def _sweep(self, root: str) -> None:
        """Remove what agents that were killed had begun to keep, and files and agents that nobody has used for long."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name.endswith(".part"):
                if not _lives(name.split(".")[-2]):
                    self._remove(path)
            elif _unused_s(path) > _KEPT_S:
                self._remove(path)
        for name in os.listdir(root):
            if name.startswith("agent-") and _unused_s(os.path.join(root, name)) > _KEPT_S:
                self._remove(os.path.join(root, name))

    def drop(self, sha256: str) -> None:
        self._remove(self.path(sha256))

    @staticmethod
    def _remove(path: str) -> None:
        try:
            os.unlink(path)
        except OSError:
            return


def _unused_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:
        return 0.0


def _pieces(size: int, read: Callable[[], bytes]) -> Iterator[bytes]:
    while size > 0:
        chunk = read()
        size -= len(chunk)
        yield chunk


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def remove_folder(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
