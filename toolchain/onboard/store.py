"""Files by their sha256: sent once, never half there, never taken for something else."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from typing import Callable

_SPARE_BYTES = 8 << 20
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
        return path if digest.hexdigest() == sha256 else None

    def put(self, sha256: str, size: int, read: Callable[[], bytes]) -> str:
        """Keep `size` bytes, which `read` gives piece by piece; the path.

        Raises:
            StoreError: there is no room, or the content is not what its sha256 says; nothing is kept. All of the
                content has been read then too, so that what follows it can be.
        """
        path = self.path(sha256)
        trouble = None
        if free_bytes(self.folder) < size + _SPARE_BYTES:
            trouble = StoreError("disk", f"{free_bytes(self.folder) >> 20} MiB are free, {size >> 20} MiB to be stored")
        part = f"{path}.part"
        digest, left = hashlib.sha256(), size
        with open(part if trouble is None else os.devnull, "wb", buffering=0) as stream:
            while left > 0:
                chunk = read()
                left -= len(chunk)
                digest.update(chunk)
                if trouble is None:
                    try:
                        view = memoryview(chunk)
                        while view:
                            view = view[stream.write(view) :]
                    except OSError as fault:
                        trouble = StoreError("disk", fault.strerror or str(fault))
            if trouble is None:
                try:
                    os.fsync(stream.fileno())
                except OSError as fault:
                    trouble = StoreError("disk", fault.strerror or os.strerror(errno.EIO))
        if trouble is None and (left or digest.hexdigest() != sha256):
            trouble = StoreError("sha256", f"what came for {sha256[:12]} has another checksum")
        if trouble is not None:
            self._remove(part)
            raise trouble
        os.replace(part, path)
        return path

    def drop(self, sha256: str) -> None:
        self._remove(self.path(sha256))

    @staticmethod
    def _remove(path: str) -> None:
        try:
            os.unlink(path)
        except OSError:
            return


def remove_folder(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
