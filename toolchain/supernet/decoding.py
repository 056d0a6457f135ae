"""Translating word by word: greedy, and beam search, with a key/value cache.

A subnet that translates has `start(input_ids, attention_mask)`, which reads the source, and `step(words, decoding)`,
which gives the logits of the next words. Inside a supernet the same is asked of whole prefixes, without a cache:
slower, and a check that the cache changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from toolchain.errors import UsageError
from toolchain.space import Architecture
from toolchain.supernet.module import Batch, Subnet, Supernet


class Marks(NamedTuple):
    """The ids of the tokens that frame a translation, and of those that are never part of one."""

    begin: int
    end: int
    never: tuple[int, ...] = ()


class Progressing(Protocol):
    """A batch of translations in progress."""

    def pick(self, rows: Tensor) -> None: ...


class Translating(Protocol):
    """What decoding needs of a subnet."""

    def start(self, input_ids: Tensor, attention_mask: Tensor) -> Progressing: ...
    def step(self, words: Tensor, decoding: Progressing) -> Tensor: ...


def translating(subnet: Subnet) -> Translating:
    """The subnet as one that translates. Raises UsageError where it is not."""
    if not hasattr(subnet, "start") or not hasattr(subnet, "step"):
        raise UsageError("this subnet does not translate", hint="train one that does: --task translate")
    return subnet  # type: ignore[return-value]  # just looked


def lengths_allowed(attention_mask: Tensor, longest: int) -> list[int]:
    """The most words a translation of each row may have: twice the source's and ten, at most `longest`."""
    return [min(longest, 2 * int(length) + 10) for length in attention_mask.sum(1)]


@torch.no_grad()
def greedy(model: Translating, ids: Tensor, attention_mask: Tensor, marks: Marks, longest: int) -> list[list[int]]:
    """The likeliest next word at each step, for each row of `ids` [batch, source]; without begin and end marks."""
    decoding = model.start(ids, attention_mask)
    return _greedy(lambda words: model.step(words[:, -1], decoding), ids, attention_mask, marks, longest)


@torch.no_grad()
def greedy_inside(
    supernet: Supernet, architecture: Architecture, ids: Tensor, attention_mask: Tensor, marks: Marks, longest: int
) -> list[list[int]]:
    """The same of a subnet inside its supernet, the whole prefix anew at each step."""

    def following(words: Tensor) -> Tensor:
        rows = torch.arange(len(words), device=words.device)
        last = torch.stack([rows, torch.full_like(rows, words.shape[1] - 1)], dim=1)
        return supernet(Batch(ids, attention_mask, last, words), architecture)  # type: ignore[no-any-return]

    return _greedy(following, ids, attention_mask, marks, longest)


def _greedy(
    following: Callable[[Tensor], Tensor], ids: Tensor, attention_mask: Tensor, marks: Marks, longest: int
) -> list[list[int]]:
    allowed = torch.tensor(lengths_allowed(attention_mask, longest), device=ids.device)
    words = torch.full((len(ids), 1), marks.begin, device=ids.device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    for place in range(int(allowed.max())):
        logits = _possible(following(words), marks)
        chosen = torch.where(ended | (allowed <= place), marks.end, logits.argmax(-1))
        words = torch.cat([words, chosen.unsqueeze(1)], dim=1)
        ended = ended | (chosen == marks.end)
        if bool(ended.all()):
            break
    return [_until(row[1:], marks.end) for row in words.tolist()]


@torch.no_grad()
def beam_search(
    model: Translating,
    ids: Tensor,
    attention_mask: Tensor,
    marks: Marks,
    longest: int,
    *,
    beam: int,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """The best of `beam` translations kept for each row, by log-probability / length ** `length_penalty`.

    A row has ended when `beam` of its translations have; a row that comes to its limit ends with what it has.
    """
    batch, allowed = len(ids), lengths_allowed(attention_mask, longest)
    decoding = model.start(ids, attention_mask)
    decoding.pick(torch.arange(batch, device=ids.device).repeat_interleave(beam))
    prefixes: list[list[list[int]]] = [[[] for _ in range(beam)] for _ in range(batch)]
    scores = torch.full((batch, beam), -torch.inf, device=ids.device)
    scores[:, 0] = 0.0
    words = torch.full((batch * beam,), marks.begin, device=ids.device)
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    for place in range(max(allowed)):
        logits = _possible(model.step(words, decoding), marks).float()
        total = scores.unsqueeze(-1) + torch.log_softmax(logits, -1).view(batch, beam, -1)
        vocabulary = total.shape[-1]
        values, chosen = total.flatten(1).topk(2 * beam, dim=1)
        picked: list[int] = []
        last: list[int] = []
        for row, (row_values, row_chosen) in enumerate(zip(values.tolist(), chosen.tolist(), strict=True)):
            alive: list[tuple[float, int, int]] = []
            for rank, (value, flat) in enumerate(zip(row_values, row_chosen, strict=True)):
                source, word = divmod(flat, vocabulary)
                if word == marks.end:
                    if rank < beam and not _over(finished[row], beam, place, allowed[row]):
                        score = value / (place + 1) ** length_penalty
                        finished[row].append((score, prefixes[row][source]))
                elif len(alive) < beam:
                    alive.append((value, source, word))
            if place + 1 == allowed[row] and not finished[row]:
                value, source, word = alive[0]
                finished[row].append((value / (place + 1) ** length_penalty, [*prefixes[row][source], word]))
            prefixes[row] = [[*prefixes[row][source], word] for _, source, word in alive]
            scores[row] = torch.tensor([value for value, _, _ in alive], device=ids.device)
            picked += [row * beam + source for _, source, _ in alive]
            last += [word for _, _, word in alive]
        if all(_over(finished[row], beam, place + 1, allowed[row]) for row in range(batch)):
            break
        decoding.pick(torch.tensor(picked, device=ids.device))
        words = torch.tensor(last, device=ids.device)
    return [max(one, key=lambda scored: scored[0])[1] for one in finished]


def _over(finished: list[tuple[float, list[int]]], beam: int, place: int, allowed: int) -> bool:
    return len(finished) >= beam or place >= allowed


def _possible(logits: Tensor, marks: Marks) -> Tensor:
    """Logits in which what is never part of a translation cannot be chosen."""
    logits = logits.clone()
    logits[:, list(marks.never)] = -torch.inf
    return logits


def _until(words: list[int], end: int) -> list[int]:
    return words[: words.index(end)] if end in words else words
