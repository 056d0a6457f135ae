"""What a translation subnet is worth: BLEU of what it says, word by word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from toolchain import export, text
from toolchain.pipeline.compiling import MARKS
from toolchain.pipeline.runs import Run, SplitName
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.records import Quality
from toolchain.space import Architecture
from toolchain.supernet.decoding import beam_search, greedy, greedy_inside, translating
from toolchain.supernet.inference import Predict, subnet_predictor, supernet_predictor
from toolchain.supernet.train import TokenBatch

_ROWS = 64

Words = Callable[[Any, Any], list[list[int]]]
"""Translations of a batch (ids and mask, int64 [rows, source]), as token ids."""


class Translated(NamedTuple):
    """The translations of a split, in its order, and what they are worth."""

    hypotheses: list[str]
    quality: Quality


class Way(NamedTuple):
    """How a model translates, and what it answers given the right words before."""

    words: Words
    predict: Predict


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
    way = _of_supernet(run, architecture) if form == "supernet" else _of_subnet(run, architecture, beam)
    return _judge(run, way, split, limit, listener)


def translate_files(
    run: Run,
    folder: Path,
    options: Mapping[str, str],
    split: SplitName,
    *,
    model: str = "model.onnx",
    beam: int = 1,
    limit: int | None = None,
    threads: int = 0,
    listener: ProgressListener = silent,
) -> Translated:
    """The same by the files of a folder: greedily by the one that translates in one call, else by its three graphs."""
    way = of_files(run, folder, options, model=model, beam=beam, threads=threads)
    return _judge(run, way, split, limit, listener)


def of_files(
    run: Run, folder: Path, options: Mapping[str, str], *, model: str = "model.onnx", beam: int = 1, threads: int = 0
) -> Way:
    """How the files of a folder translate."""
    files = export.Translation(folder, export.TranslationMarks(*MARKS), options=options, threads=threads, model=model)
    longest = _longest(run)

    def words(ids: Any, mask: Any) -> list[list[int]]:
        if beam == 1:
            return files.greedy(ids.numpy(), mask.numpy(), longest)
        return files.beam_search(ids.numpy(), mask.numpy(), longest, beam=beam)

    def predict(batch: TokenBatch) -> npt.NDArray[np.float32]:
        positions = batch.positions
        assert batch.decoder_ids is not None  # noqa: S101 - it is a translation's
        assert positions is not None  # noqa: S101
        logits = files.forced(batch.ids, batch.attention_mask, batch.decoder_ids)
        return logits[positions[:, 0], positions[:, 1]]

    return Way(words, predict)


def _longest(run: Run) -> int:
    return run.info.space.fixed["maximum_length"] - 1


def _of_supernet(run: Run, architecture: Architecture) -> Way:
    supernet, longest = run.supernet, _longest(run)

    def words(ids: Any, mask: Any) -> list[list[int]]:
        return greedy_inside(supernet, architecture, ids, mask, MARKS, longest)

    return Way(words, supernet_predictor(supernet, architecture))


def _of_subnet(run: Run, architecture: Architecture, beam: int) -> Way:
    subnet, longest = run.supernet.materialize(architecture), _longest(run)
    model = translating(subnet)

    def words(ids: Any, mask: Any) -> list[list[int]]:
        if beam == 1:
            return greedy(model, ids, mask, MARKS, longest)
        return beam_search(model, ids, mask, MARKS, longest, beam=beam)

    return Way(words, subnet_predictor(subnet))


def _judge(run: Run, way: Way, split: SplitName, limit: int | None, listener: ProgressListener) -> Translated:
    held_out = text.read_parallel_split(run.data_folder, split)
    references = [target for _, target in text.read_references(run.data_folder, split)][:limit]
    hypotheses = _translate_all(run, held_out, len(references), way.words, listener)
    batches = text.translation_evaluation_batches(held_out, whole=False, limit=len(references))
    forced = text.evaluate(way.predict, batches, "translate", split)
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
