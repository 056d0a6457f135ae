"""Translate with this model: python run_translation.py [--beam 4] "some text" ["more text" ...]

Without texts it translates the examples beside it. Needs only onnxruntime, numpy and tokenizers, and those files.
Greedily it is one call of model.onnx; with --beam it runs encoder_model.onnx, decoder_model.onnx and
decoder_with_past_model.onnx, which have their weights from model.onnx.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

try:
    import numpy as np
    import numpy.typing as npt
    import onnxruntime
    from tokenizers import Tokenizer  # type: ignore[import-untyped]
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    sys.exit(f"{missing}; it needs three packages: pip install numpy onnxruntime tokenizers")

HERE = Path(__file__).resolve().parent
MODEL = "model.onnx"
ENCODER, FIRST, STEP = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"

Ids = npt.NDArray[np.int64]
Words = list[list[int]]


class Marks(NamedTuple):
    """The ids of the tokens that frame a translation, and of those that are never part of one."""

    begin: int
    end: int
    never: tuple[int, ...] = ()


class Translation:
    """The files of a folder as something that translates; each is loaded when it is needed first.

    Args:
        options: session settings by ONNX Runtime's own keys.
        threads: 0 is one for each core.
    """

    def __init__(
        self,
        folder: Path,
        marks: Marks,
        *,
        options: Mapping[str, str] | None = None,
        threads: int = 0,
        provider: str = "CPUExecutionProvider",
        model: str = MODEL,
    ) -> None:
        self.folder, self.marks, self.model = folder, marks, model
        self.options, self.threads, self.provider = options or {}, threads, provider
        self.sessions: dict[str, Any] = {}

    def session(self, name: str) -> Any:
        if name not in self.sessions:
            self.sessions[name] = self.opened(name)
        return self.sessions[name]

    def opened(self, name: str) -> Any:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.log_severity_level = 3
        for key, value in self.options.items():
            settings.add_session_config_entry(key, value)
        return onnxruntime.InferenceSession(str(self.folder / name), settings, providers=[self.provider])

    def greedy(self, ids: Ids, mask: Ids, longest: int, shortest: int = 0) -> Words:
        """The likeliest next word at each step, for each row of `ids` [batch, source]; without begin and end marks."""
        limits = {"shortest": np.array([shortest], np.int64), "longest": np.array([longest], np.int64)}
        words = self.session(self.model).run(None, {"input_ids": ids, "attention_mask": mask, **limits})[0]
        return [until(row, self.marks.end) for row in words.tolist()]

    def forced(self, ids: Ids, mask: Ids, words: Ids) -> npt.NDArray[np.float32]:
        """Logits [batch, target, vocabulary] of what follows each of `words` [batch, target], given those before it."""
        hidden = self.session(ENCODER).run(None, {"input_ids": ids, "attention_mask": mask})[0]
        given = {"input_ids": words, "encoder_attention_mask": mask, "encoder_hidden_states": hidden}
        logits: npt.NDArray[np.float32] = self.session(FIRST).run(["logits"], given)[0]
        return logits

    def beam_search(self, ids: Ids, mask: Ids, longest: int, *, beam: int, length_penalty: float = 1.0) -> Words:
        """The best of `beam` translations kept for each row, by log-probability / length ** `length_penalty`.

        A row has ended when `beam` of its translations have; a row that comes to its limit ends with what it has.
        """
        batch, allowed = len(ids), lengths_allowed(mask, longest)
        decoding = Decoding(self, ids, mask, beam)
        prefixes: list[list[list[int]]] = [[[] for _ in range(beam)] for _ in range(batch)]
        scores = np.full((batch, beam), -np.inf, np.float32)
        scores[:, 0] = 0.0
        words = np.full(batch * beam, self.marks.begin, np.int64)
        finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
        for place in range(max(allowed)):
            logits = decoding.step(words)
            logits[:, list(self.marks.never)] = -np.inf
            total = scores[:, :, None] + log_softmax(logits).reshape(batch, beam, -1)
            vocabulary = total.shape[-1]
            flat = total.reshape(batch, -1)
            chosen = largest(flat, 2 * beam)
            picked: list[int] = []
            last: list[int] = []
            for row in range(batch):
                alive: list[tuple[float, int, int]] = []
                for rank, place_in_row in enumerate(chosen[row].tolist()):
                    value = float(flat[row, place_in_row])
                    source, word = divmod(place_in_row, vocabulary)
                    if word == self.marks.end:
                        if rank < beam and not over(finished[row], beam, place, allowed[row]):
                            score = value / (place + 1) ** length_penalty
                            finished[row].append((score, prefixes[row][source]))
                    elif len(alive) < beam:
                        alive.append((value, source, word))
                if place + 1 == allowed[row] and not finished[row]:
                    value, source, word = alive[0]
                    finished[row].append((value / (place + 1) ** length_penalty, [*prefixes[row][source], word]))
                prefixes[row] = [[*prefixes[row][source], word] for _, source, word in alive]
                scores[row] = [value for value, _, _ in alive]
                picked += [row * beam + source for _, source, _ in alive]
                last += [word for _, _, word in alive]
            if all(over(finished[row], beam, place + 1, allowed[row]) for row in range(batch)):
                break
            decoding.pick(np.array(picked))
            words = np.array(last, np.int64)
        return [max(one, key=lambda scored: scored[0])[1] for one in finished]


class Decoding:
    """Translations in progress, `beam` for each source: keys and values of the source and of the words so far."""

    def __init__(self, translation: Translation, ids: Ids, mask: Ids, beam: int) -> None:
        self.first, self.next = translation.session(FIRST), translation.session(STEP)
        encoder = translation.session(ENCODER)
        rows = np.repeat(np.arange(len(ids)), beam)
        self.hidden = encoder.run(None, {"input_ids": ids, "attention_mask": mask})[0][rows]
        self.mask = mask[rows]
        self.kept: dict[str, npt.NDArray[np.float32]] = {}

    def step(self, words: Ids) -> npt.NDArray[np.float32]:
        """Logits [rows, vocabulary] of the words after `words` [rows], the last ones so far."""
        given = {"input_ids": words[:, None], "encoder_attention_mask": self.mask}
        session = self.next if self.kept else self.first
        if not self.kept:
            given["encoder_hidden_states"] = self.hidden
        logits, *present = session.run(None, given | self.kept)
        names = [one.name.replace("present", "past_key_values") for one in session.get_outputs()[1:]]
        self.kept |= dict(zip(names, present, strict=True))
        answer: npt.NDArray[np.float32] = logits[:, -1]
        return answer

    def pick(self, rows: npt.NDArray[np.int64]) -> None:
        """Go on with these rows (some perhaps several times, some not at all). Rows of one source share its keys."""
        self.kept = {name: array[rows] if ".decoder." in name else array for name, array in self.kept.items()}


def lengths_allowed(mask: Ids, longest: int) -> list[int]:
    """The most words a translation of each row may have: twice the source's and ten, at most `longest`."""
    return [min(longest, 2 * int(length) + 10) for length in mask.sum(axis=1)]


def over(finished: list[tuple[float, list[int]]], beam: int, place: int, allowed: int) -> bool:
    return len(finished) >= beam or place >= allowed


def until(words: list[int], end: int) -> list[int]:
    return words[: words.index(end)] if end in words else words


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    answer: npt.NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return answer


def largest(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """The places of the largest numbers of each row, the largest first."""
    some = np.argpartition(-values, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(values, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)


# -- text --------------------------------------------------------------------------------------------------------------


def marks_of(tokenizer: Tokenizer) -> Marks:
    begin, end, *never = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"))
    return Marks(begin, end, (*never, begin))


def encode(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> tuple[Ids, Ids]:
    """Token ids and mask [texts, tokens]: each text's tokens, cut where they are too many, and the end mark."""
    marks = marks_of(tokenizer)
    tokenizer.encode_special_tokens = True  # what spells a mark in a text is text
    rows = [[*one.ids[: longest - 1], marks.end] for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
    ids = np.full((len(rows), max(map(len, rows))), tokenizer.token_to_id("[PAD]"), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return ids, mask


def decode(tokenizer: Tokenizer, words: Words) -> list[str]:
    return [" ".join(text.split()) for text in tokenizer.decode_batch(words, skip_special_tokens=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beam", type=int, default=1, help="how many translations are kept at each word")
    parser.add_argument("texts", nargs="*")
    asked = parser.parse_args()
    if asked.beam < 1:
        parser.error("--beam takes 1 or more")
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    texts = asked.texts or json.loads((HERE / "examples.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    translation = Translation(
        HERE,
        marks_of(tokenizer),
        options=manifest["options"],
        threads=manifest["threads"],
        provider=manifest["environment"]["provider"],
        model=manifest["artifact"]["file"],
    )
    ids, mask = encode(tokenizer, texts, manifest["maximum_length"])
    longest = manifest["maximum_length"] - 1
    if asked.beam == 1:
        words = translation.greedy(ids, mask, longest)
    else:
        words = translation.beam_search(ids, mask, longest, beam=asked.beam)
    for text, said in zip(texts, decode(tokenizer, words), strict=True):
        sys.stdout.write(f"{text}\n  {said}\n")


if __name__ == "__main__":
    main()
