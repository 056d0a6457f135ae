from __future__ import annotations

import math

import pytest
import sacrebleu

from toolchain.text.bleu import bleu

REFERENCES = ["Zwei junge weiße Männer sind im Freien.", "Ein Mann (mit Hut) steht dort; er lacht.", "Ja."]


def test_the_same_text_is_a_whole() -> None:
    assert bleu(REFERENCES, REFERENCES).score == 1


@pytest.mark.parametrize(
    "hypotheses",
    [
        ["Zwei junge Männer sind draußen.", "Ein Mann mit Hut steht dort und lacht.", "Ja."],
        ["zwei junge weiße männer sind im freien .", "", "Nein!"],
        ["Zwei junge weiße Männer sind im Freien , "] * 3,
    ],
)
def test_it_is_what_sacrebleu_prints(hypotheses: list[str]) -> None:
    found = bleu(hypotheses, REFERENCES)
    assert found.score == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [REFERENCES], force=True).score / 100)
    assert found.signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_by_hand() -> None:
    """Five of six words, 3 of 5 pairs, 1 of 4 triples, and 1/6 for none of 3 (smoothed); no brevity penalty."""
    found = bleu(["a b c x e f"], ["a b c d e f"])
    assert found.score == pytest.approx(math.exp(sum(map(math.log, (5 / 6, 3 / 5, 1 / 4, 1 / 6))) / 4))


def test_nothing_said_scores_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert bleu(["", "", ""], REFERENCES).score == 0
    assert bleu(["ja ."] * 200, ["ja ."] * 200).score < 1.01  # would be warned of: it looks tokenised
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_lists_that_do_not_match(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be held against"):
        bleu(hypotheses, references)
