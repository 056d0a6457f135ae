"""Run this model: python run_example.py "some text" ["more text" ...]

A model that reads pairs takes them two by two: python run_example.py "first" "second" ["first" "second" ...]
Without texts it runs on the examples beside it. Needs only onnxruntime, numpy and tokenizers, and those files. Texts
are answered one by one; where nobody has said what the answers mean, their first numbers are shown.
"""

import json
import sys
from pathlib import Path
from typing import Any

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


def main(given: list[str]) -> None:
    manifest = read("manifest.json")
    items = as_items(given, pairs=manifest["pairs"]) if given else read("examples.json")
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    padding, mask = special(tokenizer, "pad_token", "[PAD]"), special(tokenizer, "mask_token", "[MASK]")
    tokenizer.enable_truncation(manifest["maximum_length"])
    tokenizer.no_padding()
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

    for item in items:
        print(item if isinstance(item, str) else "\n".join(item))
        encoding = tokenizer.encode(*([item] if isinstance(item, str) else item))
        answer = session.run(None, feeds(manifest["inputs"], session, encoding, padding or 0))[0]
        show(manifest, tokenizer, encoding.ids, mask, answer)


def feeds(
    inputs: list[dict[str, str]], session: onnxruntime.InferenceSession, encoding: Any, padding: int
) -> dict[str, npt.NDArray[Any]]:
    """What the model reads for one text: of a model of one shape, filled up to its length, and for each of its rows."""
    shape = session.get_inputs()[0].shape  # numbers where only one will do, names elsewhere
    rows, length = (size if isinstance(size, int) else 0 for size in shape)
    missing = max(0, length - len(encoding.ids))
    known = {
        "ids": encoding.ids + [padding] * missing,
        "mask": encoding.attention_mask + [0] * missing,
        "types": encoding.type_ids + [0] * missing,
    }
    return {one["name"]: np.array([known[one["role"]]] * max(1, rows), dtype=one["dtype"]) for one in inputs}


def show(
    manifest: dict[str, Any], tokenizer: Tokenizer, ids: list[int], mask: int | None, answer: npt.NDArray[np.float32]
) -> None:
    """Print what the model says of a text: its answer's first row."""
    labels = manifest["labels"]
    if manifest["task"] == "encode":
        shape = " x ".join(map(str, answer.shape))
        print(f"  {shape} numbers: {', '.join(f'{one:.4g}' for one in answer[:1].ravel()[:6])}, ...")
    elif manifest["task"] == "regress":
        print(f"  {answer[0, 0]:.4g}")
    elif labels:
        scores = softmax(answer[0])
        for index in np.argsort(-scores)[:3]:
            print(f"  {scores[index]:6.1%}  {labels[index]}")
    else:
        for place in (number for number, one in enumerate(ids) if one == mask):
            scores = softmax(answer[0, place])
            best = np.argsort(-scores)[:3]
            words = ", ".join(f"{tokenizer.id_to_token(int(i))} ({scores[i]:.1%})" for i in best)
            print(f"  {tokenizer.id_to_token(mask)} = {words}")


def special(tokenizer: Tokenizer, name: str, usual: str) -> int | None:
    """The number of a special token: as the settings beside the tokenizer spell it, or as is usual."""
    spelled = [usual, usual.lower().replace("[", "<").replace("]", ">")]
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        said = read(file).get(name) if (HERE / file).is_file() else None
        spelled.insert(0, said["content"] if isinstance(said, dict) else said or usual)
    return next((number for one in spelled if (number := tokenizer.token_to_id(one)) is not None), None)


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
