"""What a translation subnet is worth: BLEU of what it says, word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

from toolchain import text
from toolchain.pipeline.runs import Run, SplitName
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Quality
from toolchain.space import Architecture
from toolchain.supernet.decoding import Marks, beam_search, greedy, greedy_inside, translating
from toolchain.supernet.inference import subnet_predictor, supernet_predictor

MARKS = Marks(begin=text.CLS, end=text.SEP, never=(text.PAD, text.UNK, text.CLS, text.MASK))
_ROWS = 64

Words = Callable[[Any, Any], list[list[int]]]
"""Translations of a batch (ids and mask, int64 [rows, source]), as token ids."""


class Translated(NamedTuple):
    """The translations of a split, in its order, and what they are worth."""

    hypotheses: list[str]
    quality: Quality


def translate(
    run: Run,
    architecture: Architecture,
    form: Literal["supernet", "subnet"],
    split: SplitName,
    *,
    beam: int = 1,
    limit: int | None = None,
    listener: ProgressListener = silent,
) -> Translated:
    """Translate a split (its first `limit` items) and compare with its references.

    `subnet` decodes with a key/value cache, greedily or by beam search; `supernet` greedily, the whole prefix anew for
    each word: the two must agree token for token. Loss and token accuracy are of the same items, teacher forced.
    """
    run.info.space.check(architecture)
    longest = run.info.space.fixed["maximum_length"] - 1
    if form == "supernet":
        supernet = run.supernet
        predict = supernet_predictor(supernet, architecture)

        def words(ids: Any, mask: Any) -> list[list[int]]:
            return greedy_inside(supernet, architecture, ids, mask, MARKS, longest)
    else:
        subnet = run.supernet.materialize(architecture)
        predict, model = subnet_predictor(subnet), translating(subnet)

        def words(ids: Any, mask: Any) -> list[list[int]]:
            if beam == 1:
                return greedy(model, ids, mask, MARKS, longest)
            return beam_search(model, ids, mask, MARKS, longest, beam=beam)

    held_out = text.read_parallel_split(run.data_folder, split)
    references = [target for _, target in text.read_references(run.data_folder, split)][:limit]
    hypotheses = _translate_all(run, held_out, len(references), words, listener)
    batches = text.translation_evaluation_batches(held_out, whole=False, limit=len(references))
    forced = text.evaluate(predict, batches, "translate", split)
    score = text.bleu(hypotheses, references)
    quality = Quality(
        metric="bleu",
        value=score.score,
        loss=forced.loss,
        n=len(references),
        split=split,
        also={"token_accuracy": forced.value},
    )
    return Translated(hypotheses, quality)


def _translate_all(
    run: Run, held_out: text.ParallelSplit, count: int, words: Words, listener: ProgressListener
) -> list[str]:
    tokenizer = text.read_tokenizer(run.data_folder)
    found: list[str] = [""] * count
    done = 0
    for rows, ids, mask in text.source_batches(held_out, limit=count, batch=_ROWS):
        said = words(torch.from_numpy(ids), torch.from_numpy(mask))
        for row, sentence in zip(rows, text.decode_tokens(tokenizer, said), strict=True):
            found[int(row)] = sentence
        done += len(rows)
        listener(Progress("translate", done, count))
    return found
