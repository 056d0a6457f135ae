"""Text in, token arrays out: reading, splitting, tokenising, masking. See README.md."""

from toolchain.text.batches import TokenBatch, TrainingBatches, evaluate, evaluation_batches
from toolchain.text.corpus import Corpus
from toolchain.text.dataset import (
    Example,
    Split,
    data_digest,
    find_prepared,
    prepare,
    read_examples,
    read_split,
    verify_prepared,
)
from toolchain.text.labelled import read_labelled
from toolchain.text.masking import IGNORED, Masked, mask_tokens
from toolchain.text.prose import read_prose
from toolchain.text.reading import read_documents
from toolchain.text.splitting import Part, Parts, SplitName, split_corpus
from toolchain.text.tokenizing import encode_texts, parse_tokenizer, read_tokenizer, train_tokenizer

__all__ = [
    "IGNORED",
    "Corpus",
    "Example",
    "Masked",
    "Part",
    "Parts",
    "Split",
    "SplitName",
    "TokenBatch",
    "TrainingBatches",
    "data_digest",
    "encode_texts",
    "evaluate",
    "evaluation_batches",
    "find_prepared",
    "mask_tokens",
    "parse_tokenizer",
    "prepare",
    "read_documents",
    "read_examples",
    "read_labelled",
    "read_prose",
    "read_split",
    "read_tokenizer",
    "split_corpus",
    "train_tokenizer",
    "verify_prepared",
]
