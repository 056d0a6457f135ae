"""A space small enough to read, files of it, and HAT's columns."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from toolchain.errors import UsageError
from toolchain.records import ImportedInfo, ImportedRow, Workload
from toolchain.space import Axis, SearchSpace
from toolchain.tables import ReadTable, read_file

SPACE = SearchSpace(
    "small",
    "bert",
    (
        Axis("embedding", (16, 32)),
        Axis("depth", (1, 2, 3)),
        Axis("hidden", (8, 16, 24), per="depth"),
        Axis("heads", (2,), per="depth"),
    ),
    {"width": 32, "head_width": 8},
)
# HAT's tables are of a wider space than its models: 512 wide feed-forward layers, and as few as two heads.
HAT_SPACE = SearchSpace(
    "hat-tables",
    "translation",
    (
        Axis("encoder_embedding", (512, 640)),
        Axis("decoder_embedding", (512, 640)),
        Axis("encoder_depth", (6,)),
        Axis("decoder_depth", (1, 2, 3, 4, 5, 6)),
        *(Axis(f"{stack}_ffn", (512, 1024, 2048, 3072), per=f"{stack}_depth") for stack in ("encoder", "decoder")),
        Axis("encoder_heads", (2, 4, 8), per="encoder_depth"),
        Axis("decoder_heads", (2, 4, 8), per="decoder_depth"),
        Axis("cross_heads", (2, 4, 8), per="decoder_depth"),
        Axis("cross_layers", (1, 2, 3), per="decoder_depth"),
    ),
    {"width": 640, "attention": 512},
)
HAT_NAMES = (
    "encoder_embed_dim,encoder_layer_num,encoder_ffn_embed_dim_avg,encoder_self_attention_heads_avg,decoder_embed_dim,"
    "decoder_layer_num,decoder_ffn_embed_dim_avg,decoder_self_attention_heads_avg,decoder_ende_attention_heads_avg,"
    "decoder_arbitrary_ende_attn_avg,latency_mean_encoder,latency_mean_decoder,latency_std_encoder,latency_std_decoder"
)
HAT_ROWS = (
    "512,6,1877.33,6,640,3,1706.67,6,2.66667,1.33333,1990.1,5932.55,3,4",
    "512,6,1706.67,4.33333,512,6,1792,5.66667,3.33333,2,2302.65,8377.14,136.524,1271.81",
)

NAMES = "embedding,depth,hidden_1,hidden_2,hidden_3,latency_ms"
ROWS = ("16,1,8,,,2.5", "32,3,8,16,24,7.25", "32,2,16,16,0,5")
EXPECTED = [
    ({"embedding": 16, "depth": 1, "hidden": (8,), "heads": (2,)}, 0.0025),
    ({"embedding": 32, "depth": 3, "hidden": (8, 16, 24), "heads": (2, 2, 2)}, 0.00725),
    ({"embedding": 32, "depth": 2, "hidden": (16, 16), "heads": (2, 2)}, 0.005),
]
INFO = ImportedInfo(
    target="board",
    workload=Workload(batch=1, sequence_length=16),
    space=SPACE,
    precision="fp32",
    threads=1,
    runtime="",
    unit="ms",
    columns={"hidden": "hidden"},
    origins={"a.csv": "a" * 64},
    created_at=dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
)


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sheet(names: str = NAMES, rows: tuple[str, ...] = ROWS) -> str:
    return "\n".join((names, *rows)) + "\n"


def pairs(rows: list[ImportedRow]) -> list[tuple[dict[str, object], float]]:
    return [(dict(row.axes), row.latency_s) for row in rows]


def row(hidden: tuple[float, ...] = (8.0,), latency_s: float = 0.01, spread_s: float | None = None) -> ImportedRow:
    axes: dict[str, float | tuple[float, ...]] = {
        "embedding": 16.0,
        "depth": float(len(hidden)),
        "hidden": hidden,
        "heads": (2.0,) * len(hidden),
    }
    return ImportedRow(axes=axes, latency_s=latency_s, spread_s=spread_s)


def refusal(path: Path, space: SearchSpace = SPACE, **options: Any) -> UsageError:
    """The UsageError that reading raises; it names the file, and says what to do."""
    with pytest.raises(UsageError) as caught:
        read_file(path, space, **options)
    assert str(path) in caught.value.what or caught.value.what.startswith("unknown axis")
    assert caught.value.hint
    return caught.value


def read_or_refusal(path: Path) -> ReadTable | None:
    """What the file holds, or None where it is refused as it should be; any other exception passes."""
    try:
        return read_file(path, SPACE)
    except UsageError as error:
        refused = error
    assert str(path) in refused.what
    assert refused.hint
    return None
