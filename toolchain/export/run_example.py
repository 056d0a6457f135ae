"""Run this model: python run_example.py "some text" ["more text" ...]

Needs only onnxruntime, numpy and tokenizers, and the files beside it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent


def main(texts: list[str]) -> None:
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["maximum_length"])
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = manifest["threads"]
    for key, value in manifest["options"].items():
        settings.add_session_config_entry(key, value)
    model = HERE / manifest["artifact"]["file"]
    session = onnxruntime.InferenceSession(str(model), settings, providers=[manifest["environment"]["provider"]])

    encoded = tokenizer.encode_batch(texts)
    ids = np.array([one.ids for one in encoded], dtype=np.int64)
    mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
    logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    labels = manifest["labels"]
    for row, text in enumerate(texts):
        print(text)
        if labels:
            scores = softmax(logits[row])
            for index in np.argsort(-scores)[:3]:
                print(f"  {scores[index]:6.1%}  {labels[index]}")
        else:
            for place in np.flatnonzero(ids[row] == tokenizer.token_to_id("[MASK]")):
                scores = softmax(logits[row, place])
                best = np.argsort(-scores)[:3]
                print("  [MASK] =", ", ".join(f"{tokenizer.id_to_token(int(i))} ({scores[i]:.1%})" for i in best))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = np.exp(logits - logits.max())
    scores: npt.NDArray[np.float32] = shifted / shifted.sum()
    return scores


if __name__ == "__main__":
    given = sys.argv[1:] or json.loads((HERE / "examples.json").read_text(encoding="utf-8"))
    main(given)
