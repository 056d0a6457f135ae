"""The store: whole files or none, and a stream that stays in step whatever goes wrong."""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.onboard import store
from toolchain.onboard.store import Store, StoreError

CONTENT = b"a model" * 1000
NO_NAMES = ["", "abc", "A" * 64, "0" * 63, "0" * 65, "../" + "0" * 61, "0" * 64 + "\n", "/" * 64]


class Stream:
    """Content in pieces; `left` is what nobody has read."""

    def __init__(self, content: bytes, piece: int = 999) -> None:
        self.left = content
        self.piece = piece

    def __call__(self) -> bytes:
        taken, self.left = self.left[: self.piece], self.left[self.piece :]
        assert taken, "more was asked for than there is"
        return taken


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "blobs").iterdir())


def refused(kind: str, put: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        put()
    assert caught.value.kind == kind
    return str(caught.value)


# -- what is kept ------------------------------------------------------------------------------------------------------


@given(content=st.binary(max_size=300), piece=st.integers(1, 301))
def test_what_was_put_is_found_until_it_is_dropped(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, piece: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    one, name = Store(str(root)), sha256(content)
    assert one.find(name) is None
    stream = Stream(content, piece)
    path = one.put(name, len(content), stream)
    assert Path(path).read_bytes() == content
    assert stream.left == b""
    assert Store(str(root)).find(name) == path
    assert kept(root) == [name]
    one.drop(name)
    one.drop(name)
    assert one.find(name) is None
    assert kept(root) == []


def test_nobody_else_may_look_at_it(tmp_path: Path) -> None:
    Store(str(tmp_path))
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"x", b""])
def test_a_damaged_file_is_not_found_and_can_be_put_again(tmp_path: Path, damage: bytes) -> None:
    one, name = Store(str(tmp_path)), sha256(CONTENT)
    path = Path(one.put(name, len(CONTENT), Stream(CONTENT)))
    path.write_bytes(damage)
    assert one.find(name) is None
    assert one.put(name, len(CONTENT), Stream(CONTENT)) == str(path)
    assert one.find(name) == str(path)


# -- what is not -------------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_keeps_nothing_and_takes_all(tmp_path: Path) -> None:
    one, stream = Store(str(tmp_path)), Stream(CONTENT)
    said = refused("sha256", lambda: one.put("0" * 64, len(CONTENT), stream))
    assert "another checksum" in said
    assert stream.left == b""
    assert kept(tmp_path) == []


def test_a_wrong_checksum_leaves_what_was_there(tmp_path: Path) -> None:
    one, name = Store(str(tmp_path)), sha256(CONTENT)
    path = one.put(name, len(CONTENT), Stream(CONTENT))
    refused("sha256", lambda: one.put(name, 5, Stream(b"wrong")))
    assert one.find(name) == path


def test_more_than_was_announced_is_not_what_was_announced(tmp_path: Path) -> None:
    one = Store(str(tmp_path))
    refused("sha256", lambda: one.put(sha256(b"abcdef"), 4, Stream(b"abcdef", 6)))
    assert kept(tmp_path) == []


def test_no_room_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, name, opened = Store(str(tmp_path)), sha256(CONTENT), []
    free = (8 << 20) + len(CONTENT)
    monkeypatch.setattr(store, "free_bytes", lambda _: free - 1)
    monkeypatch.setattr(store, "open", lambda *arguments, **_: opened.append(arguments), raising=False)
    stream = Stream(CONTENT)
    said = refused("disk", lambda: one.put(name, len(CONTENT), stream))
    assert said == "8 MiB are free, 0 MiB to be stored"
    assert (stream.left, opened, kept(tmp_path)) == (b"", [], [])
    monkeypatch.undo()
    monkeypatch.setattr(store, "free_bytes", lambda _: free)
    assert one.put(name, len(CONTENT), Stream(CONTENT))


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_no_sha256_is_refused(tmp_path: Path, name: str) -> None:
    one, stream = Store(str(tmp_path)), Stream(CONTENT)
    assert "is no sha256" in refused("sha256", lambda: one.put(name, len(CONTENT), stream))
    assert stream.left == b"", "what follows the content must be readable"
    refused("sha256", lambda: one.find(name))
    refused("sha256", lambda: one.drop(name))
    assert kept(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["open", "fsync", "replace"])
def test_a_disk_that_refuses_has_been_sent_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    one, stream = Store(str(tmp_path)), Stream(CONTENT)
    monkeypatch.setattr(
        *{"open": (store, "open"), "fsync": (os, "fsync"), "replace": (os, "replace")}[where], fail, False
    )
    if number in (errno.ENOSPC, errno.EDQUOT):
        said = refused("disk", lambda: one.put(sha256(CONTENT), len(CONTENT), stream))
        assert said == os.strerror(number)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            one.put(sha256(CONTENT), len(CONTENT), stream)
    assert stream.left == b""
    assert kept(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB that can become really full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() or sys.platform != "linux" or not mount or not unmount:
        pytest.skip("nobody here may mount a tmpfs")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=12m", "none", folder], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run([unmount, "-l", folder], check=True)


def fill(path: Path) -> None:
    """Write to it until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))


def test_a_disk_that_becomes_full_meanwhile_keeps_nothing_and_works_again(tiny_disk: Path) -> None:
    one, content = Store(str(tiny_disk)), os.urandom(2 << 20)
    stream = Stream(content, 1 << 18)
    other = tiny_disk / "other"

    def read() -> bytes:
        if len(stream.left) == 1 << 20:  # half of it has come, and another fills the disk
            fill(other)
        return stream()

    said = refused("disk", lambda: one.put(sha256(content), len(content), read))
    assert said == "No space left on device"
    assert stream.left == b""
    assert kept(tiny_disk) == []
    assert "MiB are free" in refused("disk", lambda: one.put(sha256(content), len(content), Stream(content)))
    other.unlink()
    path = one.put(sha256(content), len(content), Stream(content, 1 << 18))
    assert one.find(sha256(content)) == path


# -- others, and those that are gone -----------------------------------------------------------------------------------


def test_a_connection_lost_in_mid_file_leaves_nothing(tmp_path: Path) -> None:
    one, stream = Store(str(tmp_path)), Stream(CONTENT)

    def read() -> bytes:
        if len(stream.left) < 3000:
            raise EOFError
        return stream()

    with pytest.raises(EOFError):
        one.put(sha256(CONTENT), len(CONTENT), read)
    assert kept(tmp_path) == []


def test_two_agents_may_be_given_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has all of it while the other is in the middle: what is found then must be whole, and stay so."""
    first, second, name = Store(str(tmp_path)), Store(str(tmp_path)), sha256(CONTENT)
    stream, found = Stream(CONTENT), []

    def read() -> bytes:
        if not found and len(stream.left) < len(CONTENT) / 2:
            monkeypatch.undo()
            found.append(first.put(name, len(CONTENT), Stream(CONTENT)))
        if found:
            assert second.find(name) == found[0]
        return stream()

    monkeypatch.setattr(os, "getpid", lambda: 1)  # the second is another process
    assert [second.put(name, len(CONTENT), read)] == found
    assert second.find(name) == found[0]
    assert kept(tmp_path) == [name]


def test_what_a_killed_agent_had_begun_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    name = sha256(CONTENT)
    program = (
        "import os, signal, sys\n"
        "from toolchain.onboard.store import Store\n"
        "pieces = iter([b'half'])\n"
        "Store(sys.argv[1]).put(sys.argv[2], 100, lambda: next(pieces, None) or os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path), name], check=False)
    assert killed.returncode < 0
    assert len(kept(tmp_path)) == 1
    (tmp_path / "blobs" / f"{name}.{os.getpid()}.part").write_bytes(b"at it")
    (tmp_path / "blobs" / name).write_bytes(CONTENT)
    (tmp_path / "blobs" / f"{name}.part").write_bytes(b"of an older mostool")
    Store(str(tmp_path))
    assert kept(tmp_path) == [name, f"{name}.{os.getpid()}.part"]


def test_what_nobody_has_used_for_long_goes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    long_ago = time.time() - 40 * 86400
    kept = []
    for number in range(2):
        content = b"%d" % number
        kept.append(hashlib.sha256(content).hexdigest())
        store.put(kept[-1], 1, lambda content=content: content)
        os.utime(store.path(kept[-1]), (long_ago, long_ago))
    for name in ("agent-old.pyz", "agent-new.pyz"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / "agent-old.pyz", (long_ago, long_ago))
    assert store.find(kept[1]), "using it counts"
    Store(str(tmp_path))
    assert [store.find(sha256) is not None for sha256 in kept] == [False, True]
    assert sorted(path.name for path in tmp_path.glob("agent-*")) == ["agent-new.pyz"]
