"""What a person writes: settings, targets, spaces, architectures, and values with units."""

from __future__ import annotations

import os
from pathlib import Path

import click
from made_space import SPACE

from toolchain.cli import values
from toolchain.cli.app import app
from toolchain.cli.settings import read_options, read_settings
from toolchain.errors import MostoolError
from toolchain.pipeline.asked import read_architecture, read_architectures
from toolchain.pipeline.spaces import read_space
from toolchain.pipeline.train import read_only
from toolchain.records import decode_record, encode_compact
from toolchain.space import Architecture
from toolchain.supernet.families import declaration
from toolchain.targets import Target, read_target

from .parsing import Parse, Parser, reads_back

# -- settings, targets, spaces -----------------------------------------------------------------------------------------

_SETTINGS = (
    b'[search]\nlatency = ["5ms", "rpi=80ms@p90"]\nparams = 12000\nsearcher = "nsga2"\nseed = 3\n',
    b'[train]\ndata = ["a.tsv", "b.tsv"]\nupdates = 100\nlearning-rate = 1e-3\nfresh = true\n\n[sample]\nn = 3\n',
)
_OPTIONS = b'task = "mlm"\nupdates = 100\ndata = ["a.txt"]\ndropout = 0.1\nfresh = false\n'
_TARGET = (
    b'id = "board"\ntitle = "a board"\n\n[runtime]\nthreads = 4\ncores = [0, 1]\n\n[runtime.options]\na = "b"\n\n'
    b'[connection]\nkind = "ssh"\nhost = "pi"\nport = 22\nfolder = "~/x"\nreconnect_s = 3.5\n\n'
    b'[measure]\ngroup = 4\nwarmup_s = 0.1\nhalf_width = 0.02\nthermal = "sustained"\nhot_c = 80.0\n'
)


def _settings(data: bytes, scratch: Path) -> None:
    before, home = Path.cwd(), os.environ.get("XDG_CONFIG_HOME")
    (scratch / "mostool.toml").write_bytes(data)
    os.environ["XDG_CONFIG_HOME"] = str(scratch / "none")
    os.chdir(scratch)
    try:
        defaults, origins = read_settings(app)
    finally:
        os.chdir(before)
        os.environ.pop("XDG_CONFIG_HOME")
        if home is not None:
            os.environ["XDG_CONFIG_HOME"] = home
    assert {(command, name) for command, found in defaults.items() for name in found} == origins.keys()


def _options(data: bytes, scratch: Path) -> None:
    (scratch / "recipe.toml").write_bytes(data)
    read_options(scratch / "recipe.toml", app.commands["train"])


def _target(data: bytes, scratch: Path) -> None:
    (scratch / "targets").mkdir(exist_ok=True)
    (scratch / "targets" / "board.toml").write_bytes(data)
    reads_back(read_target("board", scratch), Target)


def _space(family: str) -> Parse:
    """Whatever is read as a space gives architectures of it, and says what they hold."""

    def parse(data: bytes, scratch: Path) -> None:
        (scratch / "space.toml").write_bytes(data)
        space = read_space(family, str(scratch / "space.toml"))
        resolved = declaration(family).resolve(
            space, vocabulary_size=100, labels=2 * (family == "bert"), maximum_length=16
        )
        for one in (resolved.smallest(), resolved.largest()):
            resolved.check(one)
            assert decode_record(encode_compact(one), Architecture, "here") == one
            assert declaration(family).parameters(resolved, one) > 0
            assert len(resolved.encode(one)) == resolved.encoding_size()

    return parse


_TRANSLATION_AXES = ("encoder_depth", "decoder_depth", "encoder_embedding", "decoder_embedding")
_TRANSLATION_LAYERS = ("encoder_ffn", "encoder_heads", "decoder_ffn", "decoder_heads", "cross_heads", "cross_layers")
_TRANSLATION = b'name = "made"\nfamily = "translation"\n\n[fixed]\nwidth = 32\nattention = 32\n' + b"".join(
    [
        *(b'\n[[axes]]\nname = "%s"\nchoices = [1, 2]\n' % name.encode() for name in _TRANSLATION_AXES),
        *(
            b'\n[[axes]]\nname = "%s"\nchoices = [1%s]\nper = "%s_depth"\n'
            % (
                name.encode(),
                b"" if name == "cross_layers" else b", 2",
                b"encoder" if name.startswith("encoder") else b"decoder",
            )
            for name in _TRANSLATION_LAYERS
        ),
    ]
)

# -- what is typed -----------------------------------------------------------------------------------------------------

_TYPES = (
    "TIME",
    "SIZE",
    "COUNT",
    "SPAN",
    "ERROR",
    "DROP",
    "SIZES",
    "COUNTS",
    "LATENCY",
    "MEMORY",
    "ENERGY",
    "POSITIVE",
)
_TYPED = (b"80ms", b"rpi=5ms,2ms@p90", b"2MiB", b"1.5M", b"3%", b"10min", b"5mJ", b"0.001", b"1e-3s")
_POINTS = declaration("bert").SPACES["tiny"]


def _as_typed(data: bytes) -> str:
    """As a shell hands it on: no NUL, and bytes that are no UTF-8 as Python has them."""
    return data.replace(b"\0", b"").decode("utf-8", "surrogateescape")


def _values(data: bytes, _: Path) -> None:
    for name in _TYPES:
        try:
            found = getattr(values, name).convert(_as_typed(data), None, None)
        except click.UsageError:
            continue
        numbers = found.limits if hasattr(found, "limits") else found if isinstance(found, tuple) else (found,)
        assert all(0 <= number < float("inf") for number in numbers), (name, found)


def _architecture(data: bytes, _: Path) -> None:
    for read in (lambda given: read_architecture(given, _POINTS), lambda given: read_only(_POINTS, given)):
        try:
            found = read(_as_typed(data))
        except MostoolError:
            continue
        _POINTS.check(found)


def _architectures(data: bytes, scratch: Path) -> None:
    (scratch / "some.jsonl").write_bytes(data)
    for one in read_architectures(scratch / "some.jsonl"):
        assert decode_record(encode_compact(one), Architecture, "here") == one


def typed_parsers() -> dict[str, Parser]:
    points = [encode_compact(one) for one in (_POINTS.smallest(), _POINTS.largest())]
    return {
        "settings": Parser("toml", _SETTINGS, _settings),
        "options": Parser("toml", [_OPTIONS], _options),
        "target": Parser("toml", [_TARGET], _target),
        "space": Parser("toml", [SPACE.encode()], _space("bert")),
        "translation space": Parser("toml", [_TRANSLATION], _space("translation")),
        "values": Parser("csv", _TYPED, _values),
        "architecture": Parser("json", points, _architecture),
        "architectures": Parser("lines", [b"\n".join(points)], _architectures),
    }
