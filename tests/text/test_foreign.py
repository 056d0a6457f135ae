"""The reference is transformers' own tokenizer, on the same folder; nothing is fetched."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.text import encode_texts, parse_tokenizer
from toolchain.text.foreign import import_tokenizer
from toolchain.text.tokenizing import CLS, MASK, PAD, SEP, SPECIALS, UNK

from .conftest import sentences

TEXTS = [
    *sentences(200),
    "Ünïcödé wörds, naïve café!",
    "日本 語 と English mixed",
    "x = y + 1; don't you'll we've",
    "Привет, мир. Γειά σου Κόσμε",
]
ASKED = [
    *TEXTS[::9],
    *TEXTS[-4:],
    "",
    " ",
    "  two  spaces   and\ttabs\nand lines\r\n",
    "UPPER Case ÀÉÎÕÜ ß İstanbul ǅ",
    "emoji 🙂👩‍👩‍👧 and \u200b zero width \ufeff mark \u00ad hyphen",
    "unknown ጀ ☃ ∑ \U0001f9ff \x07 \ue000 \ufffd",
    "e\u0301 combining ﬁ ligature ½ ²",
    "a" * 300,
    "brackets [ mask ] < s > ##the ▁the Ġthe",
    "numbers 1,234.56 -7e10 100%",
]
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
_ROBERTA = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: no reference to compare with")


def keep_only(folder: Path, *files: str) -> None:
    for name in set(_FILES) - set(files):
        (folder / name).unlink(missing_ok=True)


def write_json(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def read_json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def wordpiece(folder: Path, *, lowercase: bool) -> Path:
    """vocab.txt as BERT's: padding first, unused tokens, the other specials, then the words."""
    trained = Tokenizer(models.WordPiece(unk_token=SPECIALS[UNK]))
    trained.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    front = ["[PAD]", *(f"[unused{n}]" for n in range(7)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused7]"]
    trained.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=600, special_tokens=front))
    tokens = sorted(trained.get_vocab().items(), key=lambda one: one[1])
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8")
    write_json(folder, "tokenizer_config.json", {"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"})
    return folder


def bytelevel(folder: Path, *, prefix: bool = False) -> Path:
    """vocab.json and merges.txt as RoBERTa's: <s>, <pad>, </s>, <unk>, the words, and <mask> last."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    trained.train_from_iterator(TEXTS, trainer)
    trained.model.save(str(folder))
    vocabulary = read_json(folder, "vocab.json")
    write_json(folder, "vocab.json", vocabulary | {"<mask>": len(vocabulary)})
    write_json(folder, "tokenizer_config.json", {"add_prefix_space": prefix, "tokenizer_class": "RobertaTokenizer"})
    return folder


def unigram(folder: Path) -> Path:
    """tokenizer.json as XLM-RoBERTa's."""
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.NFKC()
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token=_ROBERTA["unk"]
    )
    trained.train_from_iterator(TEXTS, trainer)
    trained.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0))
    trained.save(str(folder / "tokenizer.json"))
    write_json(folder, "special_tokens_map.json", {f"{role}_token": token for role, token in _ROBERTA.items()})
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "bert uncased": lambda folder: wordpiece(folder, lowercase=True),
    "bert cased": lambda folder: wordpiece(folder, lowercase=False),
    "roberta": bytelevel,
    "roberta, a space before": lambda folder: bytelevel(folder, prefix=True),
}


def check_same(folder: Path, reference: Any) -> None:
    """Our tokens are the reference's, renumbered; alone, in pairs, and as the rest of the tool encodes them."""
    found = import_tokenizer(folder)
    again = parse_tokenizer(found.tokenizer.to_str(), "written and read again")
    assert sorted(found.rows) == list(range(len(reference)))
    assert found.title.endswith(f", {len(found.rows):,} tokens")
    for text in ASKED:
        expected = reference(text)["input_ids"]
        for tokenizer in (found.tokenizer, again):
            assert found.rows[tokenizer.encode(text).ids].tolist() == expected, text
    whole = encode_texts(found.tokenizer, ASKED, 400)
    for text, row in zip(ASKED, whole, strict=True):
        assert found.rows[row[row != PAD]].tolist() == reference(text)["input_ids"], text
    pair = found.tokenizer.encode("the old fox", "a ship").ids
    assert [one for one in pair if one < UNK + 3] == [CLS, SEP, SEP]
    alone = reference("the old fox")["input_ids"], reference("a ship")["input_ids"]
    assert found.rows[pair].tolist() == [*alone[0], *alone[1][1:]]
    roles = (reference.pad_token_id, reference.unk_token_id, reference.cls_token_id, reference.sep_token_id)
    assert found.rows[:5].tolist() == [*roles, reference.mask_token_id]
    rest = found.rows[5:]
    assert (np.diff(rest) > 0).all()
    kept = [found.tokenizer.id_to_token(number) for number in range(5, len(found.rows))]
    assert kept == reference.convert_ids_to_tokens(rest.tolist())


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("files", ["as it was", "tokenizer.json alone"])
def test_tokens_are_those_of_the_checkpoint(tmp_path: Path, transformers: Any, kind: str, files: str) -> None:
    MAKERS[kind](tmp_path)
    maker = (
        transformers.BertTokenizerFast if "bert c" in kind or "uncased" in kind else transformers.RobertaTokenizerFast
    )
    reference = maker.from_pretrained(tmp_path)
    if files != "as it was":
        reference.save_pretrained(tmp_path)
        keep_only(tmp_path, "tokenizer.json")
    check_same(tmp_path, reference)


def test_the_slow_tokenizer_says_the_same(tmp_path: Path, transformers: Any) -> None:
    check_same(tmp_path, transformers.BertTokenizer.from_pretrained(wordpiece(tmp_path, lowercase=True)))


def test_unigram_tokens_are_those_of_the_checkpoint(tmp_path: Path, transformers: Any) -> None:
    unigram(tmp_path)
    roles = {f"{role}_token": token for role, token in _ROBERTA.items()}
    check_same(tmp_path, transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **roles))


def test_tokens_added_later_are_kept_and_found(tmp_path: Path, transformers: Any) -> None:
    reference = transformers.BertTokenizerFast.from_pretrained(wordpiece(tmp_path, lowercase=True))
    reference.add_tokens(["mostool"])
    reference.add_special_tokens({"additional_special_tokens": ["[E1]", "<e2>"]})
    reference.save_pretrained(tmp_path)
    keep_only(tmp_path, "tokenizer.json")
    check_same(tmp_path, reference)
    found = import_tokenizer(tmp_path)
    text = "the old mostool [E1] fox<e2>"
    assert found.rows[found.tokenizer.encode(text).ids].tolist() == reference(text)["input_ids"]
    assert {"mostool", "[E1]", "<e2>"} <= set(found.tokenizer.encode(text).tokens)


def test_added_tokens_of_their_own_file_are_kept(tmp_path: Path, transformers: Any) -> None:
    bytelevel(tmp_path)
    size = len(read_json(tmp_path, "vocab.json"))
    write_json(tmp_path, "added_tokens.json", {"<second>": size + 1, "<first>": size})
    reference = transformers.RobertaTokenizerFast.from_pretrained(tmp_path)
    found = import_tokenizer(tmp_path)
    assert found.tokenizer.id_to_token(size) == "<first>"
    text = "the <first> fox<second>"
    assert found.rows[found.tokenizer.encode(text).ids].tolist() == reference(text)["input_ids"]


def test_settings_count_for_more_than_the_tokenizer_file(tmp_path: Path, transformers: Any) -> None:
    transformers.BertTokenizerFast.from_pretrained(wordpiece(tmp_path, lowercase=True)).save_pretrained(tmp_path)
    settings = read_json(tmp_path, "tokenizer_config.json")
    write_json(tmp_path, "tokenizer_config.json", settings | {"do_lower_case": False, "strip_accents": True})
    reference = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    assert reference.do_lower_case is False
    check_same(tmp_path, reference)


def test_special_tokens_may_be_spelled_otherwise(tmp_path: Path) -> None:
    wordpiece(tmp_path, lowercase=True)
    text = (tmp_path / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(text.replace("[CLS]", "<bos>").replace("[UNK]", "<what>"), encoding="utf-8")
    spelled = {"cls_token": {"content": "<bos>", "lstrip": False}, "unk_token": "<what>"}
    write_json(tmp_path, "special_tokens_map.json", spelled | {"pad_token": "[PAD]"})
    settings = read_json(tmp_path, "tokenizer_config.json")
    write_json(tmp_path, "tokenizer_config.json", settings | spelled)
    found = import_tokenizer(tmp_path)
    assert found.rows[:5].tolist() == [0, 8, 9, 10, 11]
    assert found.tokenizer.encode("☃ the").ids[:2] == [CLS, UNK]


@pytest.mark.parametrize("kind", [*MAKERS, "unigram", "bert, words by spaces"])
def test_text_that_spells_a_special_token_is_text(tmp_path: Path, kind: str) -> None:
    if kind == "unigram":
        unigram(tmp_path)
    elif kind == "bert, words by spaces":
        wordpiece(tmp_path, lowercase=False)
        made = Tokenizer(models.WordPiece.from_file(str(tmp_path / "vocab.txt"), unk_token=SPECIALS[UNK]))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        made.save(str(tmp_path / "tokenizer.json"))
    else:
        MAKERS[kind](tmp_path)
    tokenizer = import_tokenizer(tmp_path).tokenizer
    for spelled in (*SPECIALS, *_ROBERTA.values()):
        for text in (spelled, f"the {spelled} fox", f"x{spelled}{spelled}y", f"[{spelled}]"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert not {PAD, CLS, SEP, MASK}.intersection(ids), text


def test_what_was_saved_to_cut_and_pad_is_not_taken_over(tmp_path: Path) -> None:
    unigram(tmp_path)
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    made.enable_truncation(4)
    made.enable_padding(length=16)
    made.save(str(tmp_path / "tokenizer.json"))
    assert len(import_tokenizer(tmp_path).tokenizer.encode("the old fox likes the old dog").ids) > 6
    assert len(import_tokenizer(tmp_path).tokenizer.encode("the fox").ids) < 10


# -- what is refused ---------------------------------------------------------------------------------------------------


def change_document(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = read_json(folder, "tokenizer.json")
    change(document)
    write_json(folder, "tokenizer.json", document)


def drop(token: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        document["model"]["vocab"].pop(token)
        document["added_tokens"] = [one for one in document["added_tokens"] if one["content"] != token]

    return change


def saved_wordpiece(folder: Path) -> Path:
    """BERT's as tokenizer.json, made without transformers."""
    found = import_tokenizer(wordpiece(folder, lowercase=True))
    keep_only(folder)
    found.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no mask": (drop("[MASK]"), r"lacks the mask token '\[MASK\]'"),
    "no unknown": (drop("[UNK]"), r"lacks the unk token '\[UNK\]'"),
    "a gap": (drop("[unused3]"), "without a gap"),
    "a number twice": (lambda made: made["model"]["vocab"].update({"fox": 9}), "without a gap|not a tokenizer"),
    "a number far away": (lambda made: made["model"]["vocab"].update({"fox": 4_000_000_000}), "without a gap"),
    "a normaliser the library panics at": (
        lambda made: made.update({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}),
        "not a tokenizer",
    ),
    "a pattern that is none": (
        lambda made: made.update(
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}}
        ),
        "not a tokenizer",
    ),
    "a number below zero": (lambda made: made["model"]["vocab"].update({"fox": -9}), "not a tokenizer"),
    "a number that is text": (lambda made: made["model"]["vocab"].update({"fox": "9"}), "not a tokenizer"),
    "a model nobody knows": (lambda made: made["model"].update({"type": "Magic"}), "not a tokenizer"),
    "no model": (lambda made: made.pop("model"), "not a tokenizer"),
    "another unknown": (lambda made: made["model"].update({"unk_token": "fox"}), "answers 'fox'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tokenizer_file_is_refused_by_what_is_wrong(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    change_document(saved_wordpiece(tmp_path), change)
    with pytest.raises(IntegrityError, match=message) as refusal:
        import_tokenizer(tmp_path)
    assert refusal.value.hint


def test_an_added_token_gets_the_number_the_library_gives_it(tmp_path: Path, transformers: Any) -> None:
    """Whatever the file says: the next free one; transformers does the same."""
    saved_wordpiece(tmp_path)
    change_document(
        tmp_path, lambda made: made["added_tokens"].append(made["added_tokens"][0] | {"id": 7, "content": "inside"})
    )
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    found = import_tokenizer(tmp_path)
    number = found.tokenizer.token_to_id("inside")
    assert number == len(found.rows) - 1
    assert found.rows[number] == reference.convert_tokens_to_ids("inside")


def test_two_special_tokens_must_differ(tmp_path: Path) -> None:
    write_json(saved_wordpiece(tmp_path), "special_tokens_map.json", {"cls_token": "[SEP]"})
    with pytest.raises(IntegrityError, match="two purposes"):
        import_tokenizer(tmp_path)


def test_the_names_of_special_tokens_must_be_free(tmp_path: Path) -> None:
    bytelevel(tmp_path)
    vocabulary = read_json(tmp_path, "vocab.json")
    write_json(tmp_path, "vocab.json", vocabulary | {"[SEP]": len(vocabulary)})
    write_json(tmp_path, "special_tokens_map.json", {"sep_token": "</s>"})
    with pytest.raises(IntegrityError, match=r"'\[SEP\]'"):
        import_tokenizer(tmp_path)


def test_a_kind_of_tokenizer_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    made = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(SPECIALS)}, unk_token=SPECIALS[UNK])
    )
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match="WordLevel"):
        import_tokenizer(tmp_path)


FILES: dict[str, tuple[dict[str, bytes], type[MostoolError], str]] = {
    "nothing": ({}, UsageError, "no tokenizer in"),
    "not JSON": ({"tokenizer.json": b"{"}, IntegrityError, "not a tokenizer"),
    "a list": ({"tokenizer.json": b"[]"}, IntegrityError, "not a tokenizer"),
    "empty": ({"tokenizer.json": b""}, IntegrityError, "not a tokenizer"),
    "no UTF-8": ({"tokenizer.json": b"\xff\xfe"}, IntegrityError, "not UTF-8"),
    "deep": ({"tokenizer.json": b"[" * 100_000}, IntegrityError, "not a tokenizer"),
    "settings no JSON": ({"tokenizer_config.json": b"x"}, IntegrityError, "tokenizer_config.json cannot be read"),
    "settings deep": ({"tokenizer_config.json": b"[" * 100_000}, IntegrityError, "tokenizer_config.json"),
    "settings of another form": ({"special_tokens_map.json": b'{"cls_token": 3}'}, IntegrityError, "cls_token"),
    "vocab.txt empty": ({"vocab.txt": b""}, IntegrityError, "lacks the pad token|lacks"),
    "vocab.txt twice": ({"vocab.txt": b"a\nb\na\n"}, IntegrityError, "twice"),
    "vocab.txt no UTF-8": ({"vocab.txt": b"\xff\xff\n"}, IntegrityError, "not UTF-8"),
    "no merges": ({"vocab.json": b'{"a": 0}'}, UsageError, "merges.txt"),
    "merges of three": ({"vocab.json": b'{"a": 0}', "merges.txt": b"a b c\n"}, IntegrityError, "byte-level"),
    "merges of nothing": ({"vocab.json": b'{"a": 0}', "merges.txt": b"a b\n"}, IntegrityError, "does not fit"),
    "numbers below zero": ({"vocab.json": b'{"a": -1}', "merges.txt": b""}, IntegrityError, "byte-level"),
    "numbers far away": ({"vocab.json": b'{"a": 999999999999}', "merges.txt": b""}, IntegrityError, "byte-level"),
    "numbers of text": ({"vocab.json": b'{"a": "0"}', "merges.txt": b""}, IntegrityError, "vocab.json"),
    "code of its own": (
        {"vocab.txt": b"[PAD]\n", "tokenizer_config.json": b'{"tokenizer_class": "BertJapaneseTokenizer"}'},
        UsageError,
        "BertJapaneseTokenizer",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_none_are_refused(tmp_path: Path, case: str) -> None:
    files, error, message = FILES[case]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=message) as refusal:
        import_tokenizer(tmp_path)
    assert refusal.value.hint


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(UsageError, match="not a plain file"):
        import_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="no tokenizer"):
        import_tokenizer(tmp_path / "missing")


def test_a_file_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wordpiece(tmp_path, lowercase=True)
    monkeypatch.setattr("toolchain.text.foreign._LARGEST_VOCABULARY_BYTES", 1000)
    with pytest.raises(IntegrityError, match="too large"):
        import_tokenizer(tmp_path)


def test_too_many_tokens_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wordpiece(tmp_path, lowercase=True)
    monkeypatch.setattr("toolchain.text.foreign._MOST_TOKENS", 100)
    with pytest.raises(IntegrityError, match="too many tokens"):
        import_tokenizer(tmp_path)


def test_damaged_files_give_an_error_of_ours_or_a_tokenizer(tmp_path: Path) -> None:
    """Bytes and values of a good file are changed at random: never another exception, never a wrong special token."""
    saved_wordpiece(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = path.read_bytes()
    rng = random.Random(5)  # noqa: S311
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(good))
            damaged[place : place + rng.randrange(3)] = rng.choice([b"", b'"', b"0", b"-1", b"null", b"{", b"\xff"])
        path.write_bytes(damaged)
        try:
            found = import_tokenizer(tmp_path)
        except MostoolError:
            continue
        assert tuple(found.tokenizer.id_to_token(number) for number in range(5)) == SPECIALS
        assert sorted(found.rows) == list(range(len(found.rows)))
