"""Text in, token arrays out: reading, splitting, tokenising, masking. See README.md."""

from toolchain.text.batches import (
    Answers,
    TokenBatch,
    TrainingBatches,
    answer,
    evaluate,
    evaluation_batches,
    quality_of,
)
from toolchain.text.bleu import bleu
from toolchain.text.catalogues import read_catalogues
from toolchain.text.corpus import Corpus
from toolchain.text.dataset import (
    Example,
    Split,
    data_digest,
    find_prepared,
    prepare,
    read_examples,
    read_prepared,
    read_split,
    verify_prepared,
)
from toolchain.text.foreign import import_tokenizer
from toolchain.text.hub import read_hub
from toolchain.text.labelled import read_labelled
from toolchain.text.masking import IGNORED, Masked, mask_tokens
from toolchain.text.parallel import ParallelCorpus, read_parallel
from toolchain.text.parallel_batches import TranslationBatches, source_batches, translation_evaluation_batches
from toolchain.text.prose import read_prose
from toolchain.text.reading import read_documents
from toolchain.text.splitting import Part, Parts, SplitName, split_corpus
from toolchain.text.subwords import decode_tokens
from toolchain.text.tokenizing import (
    CLS,
    MASK,
    PAD,
    SEP,
    UNK,
    encode_texts,
    parse_tokenizer,
    read_tokenizer,
    train_tokenizer,
)
from toolchain.text.translation import (
    ParallelSplit,
    prepare_translation,
    read_parallel_split,
    read_references,
    translation_digest,
)

__all__ = [
    "CLS",
    "IGNORED",
    "MASK",
    "PAD",
    "SEP",
    "UNK",
    "Answers",
    "Corpus",
    "Example",
    "Masked",
    "ParallelCorpus",
    "ParallelSplit",
    "Part",
    "Parts",
    "Split",
    "SplitName",
    "TokenBatch",
    "TrainingBatches",
    "TranslationBatches",
    "answer",
    "bleu",
    "data_digest",
    "decode_tokens",
    "encode_texts",
    "evaluate",
    "evaluation_batches",
    "find_prepared",
    "import_tokenizer",
    "mask_tokens",
    "parse_tokenizer",
    "prepare",
    "prepare_translation",
    "quality_of",
    "read_catalogues",
    "read_documents",
    "read_examples",
    "read_hub",
    "read_labelled",
    "read_parallel",
    "read_parallel_split",
    "read_prepared",
    "read_prose",
    "read_references",
    "read_split",
    "read_tokenizer",
    "source_batches",
    "split_corpus",
    "train_tokenizer",
    "translation_digest",
    "translation_evaluation_batches",
    "verify_prepared",
]
