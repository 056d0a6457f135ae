"""What a model that was brought is asked besides random words: sentences, in the tokens of its own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from toolchain.errors import IntegrityError
from toolchain.records import ModelInput

Asked = dict[str, npt.NDArray[Any]]
"""Inputs of a model by their names, whole numbers [batch, sequence]."""

SENTENCES: tuple[str, ...] = (
    "The cable car runs from the harbour to the old fort every ten minutes.",
    "Nobody in the village had seen so much snow in October before.",
    "She opened the letter, read it twice and put it back into the drawer.",
    "Two of the three bridges are closed until the engineers have looked at them.",
    "Why?",
    "A terrible film: the plot is thin, the jokes are old, and it lasts almost three hours.",
    "I have rarely eaten better, and the bill was smaller than I had feared!",
    "The delivery was late again.",
    "Water boils at 100 degrees at sea level, and at about 90 degrees three thousand metres above it.",
    "How many people live in the largest city of the country, and how many of them were born there?",
    "In 1912 the company built 37 engines; a year later there were 112, and in 1915 it was bankrupt.",
    "please send me the minutes of yesterday's meeting thx",
    "The function returns None if the key is missing, otherwise the list of its values.",
    "Shares of the mining group fell by 4.7 % after the minister's speech on Tuesday.",
    "He says he is fine, but he has not slept, eaten or spoken to anyone for days.",
    "Mix the flour with two eggs and a pinch of salt, then let the dough rest for an hour in a cold place.",
    "The patient was given 20 mg twice a day and reported neither pain nor nausea.",
    "Not bad at all.",
    "The court found that the contract, although signed by both parties, had never been valid.",
    "Our team won the second half, lost the match and was cheered by everyone on the way home.",
    "Dr. Okafor and Ms. Lindqvist will speak on Friday at 6:30 p.m. in the main hall.",
    "The battery lasts a day and a half, the screen is bright, and the camera is useless in the dark.",
    "When the tide goes out, you can walk to the island in twenty minutes.",
    "Bees dance to tell each other where the flowers are.",
    "I would not recommend this hotel to anybody who wants to sleep.",
    "Each of the five samples was heated, cooled, weighed and heated again.",
    "It rained. It rained all night, and in the morning it was still raining.",
    "The library is open from Monday to Saturday, except on public holidays.",
    "Turn left after the church, cross the river, and you will see the house with the green door.",
    "Although the evidence is weak, most historians believe that the king could neither read nor write.",
    "Error: the file could not be opened (permission denied).",
    "My grandmother sold onions at the market for fifty years and knew the name of every customer.",
    "Thank you very much for your quick answer; the second part has arrived and fits perfectly.",
    "Light from that star takes eleven thousand years to reach us.",
    "What a wonderful day!",
    "The new law obliges landlords to say what the former tenant paid, unless the flat was rebuilt.",
)
"""Short and long, plain and with figures, questions and opinions; nobody else's text."""

_USUAL = {"pad_token": ("[PAD]", "<pad>"), "mask_token": ("[MASK]", "<mask>")}


class Words:
    """A tokenizer.json, with what the settings beside it say of its special tokens.

    Raises:
        IntegrityError: it is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for whatever does not parse
            if type(error) is not Exception:
                raise
            raise IntegrityError(f"{path} is not a tokenizer", why=str(error), hint="get the file again") from error
        self._beside = path.parent
        padding = self.tokenizer.padding
        name = self._special("pad_token")
        known = self.tokenizer.token_to_id(name) if name else None
        self.padding = int(known if known is not None else padding["pad_id"] if padding else 0)
        self.tokenizer.no_padding()

    def examples(self, *, masked: bool) -> list[str]:
        """A few sentences, with a word hidden in each for a model that finds it."""
        some, mask = list(SENTENCES[:4]), self._special("mask_token")
        if not masked or not mask:
            return some
        halves = [(words[: len(words) // 2], words[len(words) // 2 + 1 :]) for words in map(str.split, some)]
        return [" ".join([*before, mask, *after]) for before, after in halves]

    def ask(
        self,
        texts: Sequence[str],
        inputs: Sequence[ModelInput],
        *,
        longest: int,
        rows: int = 1,
        fixed: bool = False,
    ) -> list[Asked]:
        """The texts, so many at a time (the last ones repeated), cut and, where `fixed`, filled up to `longest`."""
        self.tokenizer.enable_truncation(longest)
        return [self._batch(part, inputs, longest if fixed else 0) for part in _parts(texts, rows)]

    def _batch(self, texts: Sequence[str], inputs: Sequence[ModelInput], least: int) -> Asked:
        encoded = self.tokenizer.encode_batch(list(texts))
        length = max(1, least, *(len(one.ids) for one in encoded))
        known = {
            "ids": np.full((len(texts), length), self.padding),
            "mask": np.zeros((len(texts), length), np.int64),
            "types": np.zeros((len(texts), length), np.int64),
        }
        for row, one in enumerate(encoded):
            for role, values in (("ids", one.ids), ("mask", one.attention_mask), ("types", one.type_ids)):
                known[role][row, : len(values)] = values
        return {one.name: known[one.role].astype(one.dtype) for one in inputs}

    def _special(self, name: str) -> str | None:
        """How a special token is spelled: as the settings beside the tokenizer say, or as is usual; None: not known."""
        for file in ("special_tokens_map.json", "tokenizer_config.json"):
            said = _setting(self._beside / file, name)
            if said is not None and self.tokenizer.token_to_id(said) is not None:
                return said
        return next((one for one in _USUAL[name] if self.tokenizer.token_to_id(one) is not None), None)


def _setting(path: Path, name: str) -> str | None:
    if not path.is_file():
        return None
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path} cannot be read", why=str(error), hint="get the file again") from error
    said = read.get(name) if isinstance(read, dict) else None
    said = said.get("content") if isinstance(said, dict) else said
    return said if isinstance(said, str) else None


def _parts(texts: Sequence[str], rows: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), rows):
        part = list(texts[start : start + rows])
        yield part + [part[-1]] * (rows - len(part))
