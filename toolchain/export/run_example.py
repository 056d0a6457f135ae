"""Run this model: python run_example.py "some text" ["more text" ...]

A model that reads pairs takes them two by two: python run_example.py "first" "second" ["first" "second" ...]
Without texts it runs on the examples beside it. Needs only onnxruntime, numpy and tokenizers, and those files.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent


def main(given: list[str]) -> None:
    manifest = read("manifest.json")
    items = as_items(given, pairs=manifest["pairs"]) if given else read("examples.json")
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["maximum_length"])
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.encode_special_tokens = manifest["task"] != "mlm"  # [MASK] and the like are text to all other models
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = manifest["threads"]
    for key, value in manifest["options"].items() if manifest["engine"] is None else ():
        settings.add_session_config_entry(key, value)
    if manifest["engine"] is None:
        model, provider = manifest["artifact"]["file"], manifest["environment"]["provider"]
    else:  # an engine is for its GPU; the file it was built from runs anywhere
        model, provider = "model.onnx", "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(str(HERE / model), settings, providers=[provider])

    encoded = tokenizer.encode_batch([item if isinstance(item, str) else tuple(item) for item in items])
    ids = np.array([one.ids for one in encoded], dtype=np.int64)
    mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
    logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    labels = manifest["labels"]
    for row, item in enumerate(items):
        print(item if isinstance(item, str) else "\n".join(item))
        if manifest["task"] == "regress":
            print(f"  {logits[row, 0]:.4g}")
        elif labels:
            scores = softmax(logits[row])
            for index in np.argsort(-scores)[:3]:
                print(f"  {scores[index]:6.1%}  {labels[index]}")
        else:
            for place in np.flatnonzero(ids[row] == tokenizer.token_to_id("[MASK]")):
                scores = softmax(logits[row, place])
                best = np.argsort(-scores)[:3]
                print("  [MASK] =", ", ".join(f"{tokenizer.id_to_token(int(i))} ({scores[i]:.1%})" for i in best))


def read(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def as_items(texts: list[str], *, pairs: bool) -> list[Any]:
    """The texts, of a model that reads pairs two by two."""
    if pairs and len(texts) % 2:
        sys.exit('this model reads pairs of texts: python run_example.py "first" "second" ["first" "second" ...]')
    return list(zip(texts[::2], texts[1::2], strict=True)) if pairs else texts


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = np.exp(logits - logits.max())
    scores: npt.NDArray[np.float32] = shifted / shifted.sum()
    return scores


if __name__ == "__main__":
    main(sys.argv[1:])
