from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.text import catalogues
from toolchain.text.catalogues import FEWEST_PAIRS, ROOTS, read_catalogues
from toolchain.text.corpus import same_text_key

Messages = dict[str, str]
HEADER = "Project-Id-Version: made\nContent-Type: text/plain; charset={}\nPlural-Forms: nplurals=2; plural=n != 1;\n"
_THINGS = ("file", "folder", "package", "key", "table", "server", "user", "branch", "window", "font")
_DINGE = ("Datei", "Ordner", "Paket", "Schlüssel", "Tabelle", "Dienst", "Nutzer", "Zweig", "Fenster", "Schrift")


def compiled(messages: Messages, charset: str = "utf-8", order: str = "<", header: str = HEADER) -> bytes:
    """A .mo file as msgfmt writes it: sorted, without a hash table, every string ended by a NUL."""
    entries = {"": header.format(charset), **messages}
    encoded = sorted((source.encode(charset), target.encode(charset)) for source, target in entries.items())
    count = len(encoded)
    tables, strings = [b"", b""], b""
    for side in (0, 1):
        for entry in encoded:
            tables[side] += struct.pack(f"{order}2I", len(entry[side]), 28 + 16 * count + len(strings))
            strings += entry[side] + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 28 + 16 * count)
    return head + b"".join(tables) + strings


def many(count: int = FEWEST_PAIRS, first: int = 0) -> Messages:
    """Distinct messages with words."""
    return {
        f"cannot open the {_THINGS[i % 10]} with the {_THINGS[i // 10 % 10]} of level {i}": (
            f"{_DINGE[i % 10]} mit {_DINGE[i // 10 % 10]} der Stufe {i} nicht zu öffnen"
        )
        for i in range(first, first + count)
    }


def install(root: Path, package: str, data: bytes | Messages, language: str = "de") -> Path:
    path = root / language / "LC_MESSAGES" / f"{package}.mo"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else compiled(data))
    return path


def read(root: Path, language: str | None = "de") -> dict[str, str]:
    """The pairs found beside those that make them enough."""
    filling = many()
    install(root, "zz-many", filling, language or "de")
    corpus = read_catalogues(language, [root])
    return {
        source: target for source, target in zip(corpus.sources, corpus.targets, strict=True) if source not in filling
    }


def cleaned(source: str, target: str) -> tuple[str, str] | None:
    return catalogues._cleaned(source, target)


# -- what is read ------------------------------------------------------------------------------------------------------


def test_messages_of_packages_become_pairs(tmp_path: Path) -> None:
    first = install(tmp_path / "a", "apt", many(1500))
    second = install(tmp_path / "b", "bash", many(700, first=1400))
    corpus = read_catalogues("de", [tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"])
    assert len(corpus.sources) == len(corpus.targets) == 2100
    assert dict(zip(corpus.sources, corpus.targets, strict=True)) == many(2100)
    assert corpus.languages == ("en", "de")
    assert corpus.title == "messages of 2 packages on this machine, en to de"
    assert corpus.files == {"apt": sha256_bytes(first.read_bytes()), "bash": sha256_bytes(second.read_bytes())}
    assert corpus.notes == ("2100 distinct messages of 2 packages (apt 1500, bash 600)",)
    assert read_catalogues("de", [tmp_path / "a", tmp_path / "b"]).sha256 == corpus.sha256


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_encodings_and_byte_orders(tmp_path: Path, charset: str, order: str) -> None:
    install(tmp_path, "made", compiled({"a small house": "ein kleines Häuschen"}, charset, order))
    assert read(tmp_path) == {"a small house": "ein kleines Häuschen"}


def test_contexts_and_plurals(tmp_path: Path) -> None:
    install(tmp_path, "made", {
        "menu\4Open the file": "Datei öffnen",
        "%d file found\0%d files found": "%d Datei gefunden\0%d Dateien gefunden",
        "list\4%d word\0%d words": "%d Wort\0%d Wörter",
        "one tree\0some trees": "木がある",
    })  # fmt: skip
    assert read(tmp_path) == {
        "Open the file": "Datei öffnen",
        "%d files found": "%d Dateien gefunden",
        "%d words": "%d Wörter",
        "some trees": "木がある",
    }


def test_a_pair_that_packages_share_is_kept_once(tmp_path: Path) -> None:
    install(tmp_path, "a", {"Open the file": "Datei öffnen", "Close": "Schließen"})
    install(tmp_path, "b", {"open the  file": "datei Öffnen", "Close it": "Schließen", "Close": "Zumachen"})
    install(tmp_path, "zz-many", many())
    corpus = read_catalogues("de", [tmp_path])
    assert set(list(zip(corpus.sources, corpus.targets, strict=True))[:4]) == {
        ("Open the file", "Datei öffnen"),
        ("Close", "Schließen"),
        ("Close it", "Schließen"),
        ("Close", "Zumachen"),
    }
    assert len(corpus.sources) == FEWEST_PAIRS + 4


def test_copies_of_a_catalogue_and_lists_of_names_are_not_read(tmp_path: Path) -> None:
    path = install(tmp_path / "a", "made", {"a small house": "ein Häuschen"})
    path.with_name("link.mo").symlink_to(path)
    install(tmp_path / "a", "iso_639-3", {"Some language": "Irgendeine Sprache"})
    install(tmp_path / "b", "made", {"another house": "noch ein Haus"})
    install(tmp_path / "a", "zz-many", many())
    corpus = read_catalogues("de", [tmp_path / "a", tmp_path / "b"])
    assert set(corpus.files) == {"link", "made", "zz-many"}
    assert len(corpus.sources) == FEWEST_PAIRS + 2


# -- which language ----------------------------------------------------------------------------------------------------


def test_german_where_there_is_enough_else_the_most(tmp_path: Path) -> None:
    german = install(tmp_path, "made", many())
    install(tmp_path, "made", many(2500), "fr")
    install(tmp_path, "made", many(2500), "sv")
    install(tmp_path, "made", many(3000), "en_GB")
    install(tmp_path, "made", many(3000), "no language")
    assert read_catalogues(None, [tmp_path]).languages == ("en", "de")
    german.write_bytes(compiled(many(FEWEST_PAIRS - 1)))
    corpus = read_catalogues(None, [tmp_path])
    assert corpus.languages == ("en", "fr")
    assert len(corpus.sources) == 2500
    assert read_catalogues("sv", [tmp_path]).languages == ("en", "sv")


def test_too_few_pairs_are_said_in_numbers(tmp_path: Path) -> None:
    for number, name in enumerate("abcdef"):
        install(tmp_path, name, many(10 + number, first=100 * number))
    for language in (None, "de"):
        with pytest.raises(UsageError) as caught:
            read_catalogues(language, [tmp_path])
        assert "75 messages of 6 packages (f 15, e 14, d 13, c 12 and 2 more)" in caught.value.why
        assert str(FEWEST_PAIRS) in caught.value.why
        assert "--data train.en train.de" in caught.value.hint
    with pytest.raises(UsageError, match=r"0 messages of no package.*languages found: de"):
        read_catalogues("xx", [tmp_path])
    for language in (None, "de", "", "../..", "\0"):
        with pytest.raises(UsageError, match="0 messages of no package"):
            read_catalogues(language, [tmp_path / "nowhere"])


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        ("Open file", "Datei öffnen", ("Open file", "Datei öffnen")),
        ("\nNo %s:\nno space.\n", "%s fehlt:\nvoll.\n", ("No %s: no space.", "%s fehlt: voll.")),
        ("Host\u00a0name", "Rechnername", ("Host name", "Rechnername")),
        ("Open", "開く", ("Open", "開く")),
        ("tree", "木", ("tree", "木")),
        ("file %2$s of %1$s", "%1$s hat %2$s", ("file %2$s of %1$s", "%1$s hat %2$s")),
        # shortcuts
        ("_File", "_Datei", ("File", "Datei")),
        ("&Open...", "Ö&ffnen …", ("Open...", "Öffnen …")),
        ("E_xit", "_Beenden", ("Exit", "Beenden")),
        ("Save _As", "Speichern _unter", ("Save As", "Speichern unter")),
        ("_File", "ファイル(_F)", ("File", "ファイル")),
        ("&File", "ファイル (&F)", ("File", "ファイル")),
        ("File", "_Datei", ("File", "Datei")),
        ("set max_value here", "max_value hier setzen", ("set max_value here", "max_value hier setzen")),
        ("bad krb5_cred part", "falscher Krb5_cred-Teil", ("bad krb5_cred part", "falscher Krb5_cred-Teil")),
        ("KP_Enter", "NB_Eingabe", ("KP_Enter", "NB_Eingabe")),
        ("database_name", "Datenbankname", ("database_name", "Datenbankname")),
        ("AT&T phones", "Telefone von AT&T", ("AT&T phones", "Telefone von AT&T")),
        # no text
        ("%s: %d", "%s – %d", None),
        ("%(name)s {0} ${x} %-5.2f%%", "{0} %(name)s", None),
        ("x", "y", None),
        ("12:30 a", "12.30 b", None),
        ("???", "!!!", None),
        ("", "Text", None),
        ("Open", "OPEN", None),
        ("Open file", "open  file", None),
        # no plain text
        ("<b>Open</b> it", "<b>Öffne</b> es", None),
        ("see http://example.org", "siehe http://example.org", None),
        ("salt &amp; pepper", "Salz und Pfeffer", None),
        ("one paragraph\n\nand another", "ein Absatz und noch einer", None),
        ("usage:\n  copy it", "Aufruf:\n  kopieren", None),
        ("  -a, --all   show all", "  -a, --all   alle zeigen", None),
        ("name\tvalue", "Name\tWert", None),
        ("ring the \a bell", "die \a Glocke läuten", None),
        ("words " * 84, "Wörter " * 84, None),
        ("words", "Wort " * 20, None),
    ],
)  # fmt: skip
def test_cleaning(source: str, target: str, kept: tuple[str, str] | None) -> None:
    assert cleaned(source, target) == kept


@given(source=st.text(max_size=60), target=st.text(max_size=60))
def test_whatever_is_kept_reads_as_a_line(source: str, target: str) -> None:
    pair = cleaned(source, target)
    if pair is not None:
        for text in pair:
            assert text == " ".join(text.split())
            assert text.isprintable()
            assert any(character.isalpha() for character in text)
        assert same_text_key(pair[0]) != same_text_key(pair[1])


# -- hostile files -----------------------------------------------------------------------------------------------------


def _head(count: int, sources: int = 28, targets: int = 28, revision: int = 0) -> bytes:
    return struct.pack("<7I", 0x950412DE, revision, count, sources, targets, 0, 28)


WHOLE = compiled({"a small house": "ein kleines Häuschen"})
DAMAGED = {
    "empty": b"",
    "noise": np.random.default_rng(0).bytes(4000),
    "text": b"msgid \"a\"\nmsgstr \"b\"\n",
    "cut": WHOLE[:-30],
    "other format": _head(0, revision=2 << 16),
    "endless": _head(0xFFFFFFFF) + bytes(4000),
    "no tables": _head(1000),
    "far away": _head(1) + struct.pack("<2I", 10, 0xFFFFFFF0),
    "overlapping": _head(500) + struct.pack("<2I", 1900, 28) * 500,
    "wrong encoding": compiled({"a house": "ein Häuschen"}, "iso-8859-1", header="charset=utf-8\n"),
    "no such encoding": compiled({"a house": "ein Haus"}, header="charset=klingon\n"),
    "no encoding of text": compiled({"a house": "ein Haus"}, header="charset=base64\n"),
    "never decodes": compiled({"a house": "ein Haus"}, header="charset=undefined\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_catalogue_is_passed_over_and_counted(tmp_path: Path, name: str) -> None:
    install(tmp_path, "damaged", DAMAGED[name])
    install(tmp_path, "good", {"Open the file": "Datei öffnen"})
    assert read(tmp_path) == {"Open the file": "Datei öffnen"}
    assert read_catalogues("de", [tmp_path]).notes[1:] == ("1 catalogue could not be read and was passed over",)


def test_what_is_no_plain_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = install(tmp_path, "good", {"Open the file": "Datei öffnen"})
    os.mkfifo(good.with_name("pipe.mo"))
    good.with_name("folder.mo").mkdir()
    good.with_name("loop.mo").symlink_to("loop.mo")
    good.with_name("readme.txt").write_text("no catalogue")
    install(tmp_path, "big", compiled(many()) + bytes(1 << 20))
    (tmp_path / "fr").write_text("no folder")
    (tmp_path / "sv").symlink_to("sv")
    monkeypatch.setattr(catalogues, "_LARGEST_CATALOGUE_BYTES", 1 << 20)
    assert read(tmp_path) == {"Open the file": "Datei öffnen"}
    corpus = read_catalogues("de", [tmp_path])
    assert corpus.notes[1:] == ("4 catalogues could not be read and were passed over",)
    monkeypatch.setattr(catalogues, "_MOST_CATALOGUES", 5)
    with pytest.raises(UsageError, match="too few"):
        read_catalogues("de", [tmp_path])


def test_nothing_of_a_message_that_is_too_long_is_read(tmp_path: Path) -> None:
    install(
        tmp_path, "made", {"a house " * 1000: "ein Haus " * 1000, "a house": "ein Haus", "a boat": "ein Boot " * 1000}
    )
    assert read(tmp_path) == {"a house": "ein Haus"}


@given(cut=st.integers(0, len(WHOLE)), place=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_no_byte_of_a_catalogue_can_do_harm(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, value: int
) -> None:
    changed = bytearray(WHOLE)
    changed[place] = value
    path = install(tmp_path_factory.mktemp("any"), "made", bytes(changed[:cut]))
    read_of = catalogues._read_language([path.parent])
    assert len(read_of.catalogues) + read_of.passed_over == 1
    for catalogue in read_of.catalogues:
        assert len(catalogues._clean([catalogue]).pairs) <= 2


def test_this_machine() -> None:
    """Where packages with translations are installed; images made to be small have none."""
    try:
        corpus = read_catalogues(None, ROOTS)
    except UsageError as error:
        pytest.skip(str(error))
    assert len(corpus.sources) >= FEWEST_PAIRS
    assert corpus.languages[0] == "en"
    assert len({*zip(corpus.sources, corpus.targets, strict=True)}) == len(corpus.sources)
    assert all("/" not in name for name in corpus.files)
