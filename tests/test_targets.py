import re
import typing
from pathlib import Path

import msgspec
import pytest

from toolchain import targets
from toolchain.errors import UsageError
from toolchain.targets import Measure, Runtime, Ssh, Target, find_targets, read_target, shipped_folder

README = (Path(__file__).parent.parent / "targets" / "README.md").read_text()
SOUND = 'schema = 1\nid = "board"\ntitle = "a board"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "targets").mkdir()
    return tmp_path


def write(project: Path, text: str | bytes, name: str = "board") -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (project / "targets" / f"{name}.toml").write_bytes(data)


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(shipped_folder("targets").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_target_is_valid(path: Path, tmp_path: Path) -> None:
    target = read_target(path.stem, tmp_path)
    assert target.id == path.stem
    assert target.title


def test_cpu_ships() -> None:
    assert (shipped_folder("targets") / "cpu.toml").is_file()


@pytest.mark.parametrize("name", ["rpi", "rpi4", "rpi5"])
def test_a_shipped_raspberry_pi_waits_for_its_address_and_stays_cool(name: str, tmp_path: Path) -> None:
    target = read_target(name, tmp_path)
    assert isinstance(target.connection, Ssh)
    assert not target.connection.host
    assert target.runtime == msgspec.structs.replace(read_target("cpu", tmp_path).runtime, threads=4)
    assert target.measure.hot_c <= 80
    assert target.measure.warmup_s == 2


def test_what_a_file_leaves_out_has_its_default(project: Path) -> None:
    write(project, SOUND)
    assert read_target("board", project) == Target(id="board", title="a board")


def test_a_projects_target_wins_over_the_shipped_one_of_its_name(project: Path) -> None:
    write(project, 'id = "cpu"\ntitle = "mine"\n', "cpu")
    assert read_target("cpu", project).title == "mine"
    assert find_targets(project)["cpu"].parent == project / "targets"
    assert read_target("cpu", project / "elsewhere").title != "mine"


def test_a_byte_order_mark_is_passed_over(project: Path) -> None:
    write(project, b"\xef\xbb\xbf" + SOUND.encode())
    assert read_target("board", project).id == "board"


@pytest.mark.parametrize("asked", ["bord", "Board", "board2"])
def test_an_unknown_device_hints_at_the_nearest(project: Path, asked: str) -> None:
    write(project, SOUND)
    with pytest.raises(UsageError, match="unknown device") as refused:
        read_target(asked, project)
    assert refused.value.hint.startswith("did you mean board?")
    assert "devices add" in refused.value.hint


@pytest.mark.parametrize("asked", ["", "../cpu", "/etc/passwd", "cpu.toml/x", "cpu\x00", "x" * 5000])
def test_a_name_is_never_taken_for_a_path(project: Path, asked: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        read_target(asked, project)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "missing required field `id`"),
        ('id = "board"', "missing required field `title`"),
        (SOUND + 'colour = "red"', "unknown field `colour`"),
        (SOUND + "[runtime]\nthread = 4", "unknown field `thread` - at `$.runtime`"),
        (SOUND + '[runtime]\nthreads = "4"', "Expected `int`, got `str` - at `$.runtime.threads`"),
        (SOUND + "[runtime]\nthreads = 0", "threads must be at least 1"),
        (SOUND + '[runtime]\nengine = "abacus"', "$.runtime.engine"),
        (SOUND + "[runtime.options]\nx = 1", "$.runtime.options[...]"),
        (SOUND + '[connection]\nkind = "carrier pigeon"', "$.connection"),
        (SOUND + '[connection]\nhost = "board"', "missing required field `kind`"),
        (SOUND + '[connection]\nkind = "local"\nhost = "board"', "unknown field `host`"),
        (SOUND + '[connection]\nkind = "ssh"\nport = 65536', "port must be 1 to 65535"),
        (SOUND + '[connection]\nkind = "ssh"\nreconnect_s = 0', "connection.reconnect_s must be above zero"),
        (SOUND + "[runtime]\ncores = [-1]", "runtime.cores"),
        (SOUND + '[runtime]\nengine = "tensorrt"\nprovider = "CUDAExecutionProvider"', "has no providers"),
        (SOUND + '[measure]\nthermal = "hope"', "$.measure.thermal"),
        (SOUND + "[measure]\ncool_c = 79", "measure.cool_c must not be above measure.hot_c"),
        (SOUND + "[measure]\ngroup = 1.5", "$.measure.group"),
        (SOUND + "[measure]\ngroup = 0", "measure.group must be at least 1"),
        (SOUND + "[measure]\nmaximum_s = nan", "measure.maximum_s"),
        (SOUND + "[measure]\nwarmup_s = inf", "measure.warmup_s"),
        (SOUND + "[measure]\nhalf_width = -0.1", "measure.half_width"),
        (SOUND + 'title = "twice"', "overwrite"),
        (SOUND + "x = [", "at end of document"),
        (SOUND + "x = " + "[" * 20_000, "recursion"),
        (SOUND + "\x00", "line 4"),
        (b'id = "\xff"', "utf-8"),
        (SOUND.encode("utf-16"), "utf-8"),
    ],
    ids=lambda value: repr(value[-24:]),
)
def test_a_file_that_is_no_target_is_refused_with_the_reason(project: Path, text: str | bytes, why: str) -> None:
    write(project, text)
    with pytest.raises(UsageError, match="is not a valid target") as refused:
        read_target("board", project)
    assert why in refused.value.why
    assert "targets/README.md" in refused.value.hint


def test_a_target_for_a_newer_mostool_says_so(project: Path) -> None:
    write(project, SOUND.replace("schema = 1", "schema = 2"))
    with pytest.raises(UsageError, match="newer mostool") as refused:
        read_target("board", project)
    assert refused.value.hint == "upgrade mostool"


def test_a_target_has_the_name_of_its_file(project: Path) -> None:
    write(project, SOUND, "copy")
    with pytest.raises(UsageError, match="says it is 'board'") as refused:
        read_target("copy", project)
    assert refused.value.hint


def test_what_is_no_file_or_far_too_large_is_no_target(project: Path) -> None:
    (project / "targets" / "folder.toml").mkdir()
    (project / "targets" / "gone.toml").symlink_to("nowhere")
    for name in ("folder", "gone"):
        with pytest.raises(UsageError, match="unknown device"):
            read_target(name, project)
    with (project / "targets" / "board.toml").open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(UsageError, match="too large"):
        read_target("board", project)


def test_a_file_that_cannot_be_read_is_a_usage_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, SOUND)
    path = find_targets(project)["board"]
    path.unlink()
    monkeypatch.setattr(targets, "find_targets", lambda _: {"board": path})
    with pytest.raises(UsageError, match="cannot read"):
        read_target("board", project)


# -- targets/README.md -----------------------------------------------------------------------------------------------


def fields_of(info: msgspec.inspect.Type, prefix: str = "") -> dict[str, str | None]:
    """Every field a target's TOML may hold, by its dotted name, with its default as JSON; None where there is none."""
    if isinstance(info, msgspec.inspect.UnionType):
        return {name: default for one in info.types for name, default in fields_of(one, prefix).items()}
    assert isinstance(info, msgspec.inspect.StructType)
    found: dict[str, str | None] = {}
    if info.tag_field is not None:
        found[prefix + info.tag_field] = None
    for field in msgspec.structs.fields(info.cls):
        kind = msgspec.inspect.type_info(field.type)
        if isinstance(kind, msgspec.inspect.StructType | msgspec.inspect.UnionType):
            found |= fields_of(kind, f"{prefix}{field.encode_name}.")
        elif field.default is not msgspec.NODEFAULT:
            found[prefix + field.encode_name] = msgspec.json.encode(field.default).decode()
        elif field.default_factory is not msgspec.NODEFAULT:
            found[prefix + field.encode_name] = msgspec.json.encode(field.default_factory()).decode()
        else:
            found[prefix + field.encode_name] = None
    return found


def test_the_readme_lists_exactly_the_fields_there_are_with_their_defaults() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`([^`]*)`|required) \|", README, flags=re.MULTILINE)
    listed = {name: default or None for name, default in rows}
    assert len(listed) == len(rows)
    assert listed == fields_of(msgspec.inspect.type_info(Target))


def test_the_readme_names_every_kind_of_connection() -> None:
    connection = typing.get_type_hints(Target)["connection"]
    tags = {kind.__struct_config__.tag for kind in typing.get_args(connection) or (connection,)}
    for tag in tags:
        assert f'`"{tag}"`' in README


def test_the_examples_in_the_readme_are_targets(project: Path) -> None:
    for example in re.findall(r"^```toml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        identity = re.search(r'^id = "(.*)"', example, flags=re.MULTILINE)
        assert identity is not None
        write(project, example, identity[1])
    assert read_target("workstation", project).runtime.threads == 4
    kitchen = read_target("kitchen", project)
    assert kitchen.connection == Ssh(
        host="192.168.1.20",
        user="pi",
        identity="targets/kitchen_key",
        python="/home/pi/venv/bin/python",
        folder="/mnt/ssd/mostool",
    )
    assert kitchen.runtime.cores == (1, 2, 3)


def test_the_readme_names_every_engine_and_every_way_with_heat() -> None:
    for record, field in ((Runtime, "engine"), (Measure, "thermal")):
        for choice in typing.get_args(typing.get_type_hints(record)[field]):
            assert f'`"{choice}"`' in README
