"""A bundle's ingredients: a subnet, its file, its checks, a tokenizer and a manifest with made-up figures."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import numpy as np
import tiny
import torch

import toolchain
from toolchain import records
from toolchain.export import Checks, DeviceKind, build_checks, export_encoder
from toolchain.records import Artifact, Manifest
from toolchain.space import Architecture
from toolchain.supernet.families import declaration
from toolchain.supernet.module import Subnet
from toolchain.text import encode_texts, train_tokenizer

TEXTS = [f"the {one} sees the {two} ." for one in ("dog", "cat", "fox", "owl") for two in ("sea", "sun", "fog", "sky")]
LONGEST = 16


def make_subnet(labels: int = 3, seed: int = 0, architecture: Architecture | None = None) -> Subnet:
    supernet = tiny.supernet(tiny.resolved(labels), seed=seed)
    return supernet.materialize(architecture or supernet.space.middle())


def make_checks(subnet: Subnet, rows: int = 6) -> Checks:
    ids = tiny.batch(rows=rows, length=11).ids.numpy()
    return build_checks(subnet, ids, padding=0)


PORTABLE = DeviceKind("onnxruntime", "CUDAExecutionProvider", "x86_64", ())
"""A device whose files have standard operators alone."""


def export(subnet: Subnet, path: Path, checks: Checks | None = None, device: DeviceKind = PORTABLE) -> Artifact:
    artifact, _ = export_encoder(
        subnet,
        subnet.architecture,
        path,
        checks or make_checks(subnet),
        device=device,
        checkpoint_sha256="c" * 64,
        options={},
    )
    return artifact


class Ingredients:
    """What `write_bundle` is given: a model for real text (or pairs of it), so that the example can run."""

    def __init__(self, folder: Path, labels: int = 3, *, pairs: bool = False) -> None:
        tokenizer = train_tokenizer(TEXTS, 80)
        space = declaration("bert").resolve(
            tiny.declared(), vocabulary_size=tokenizer.get_vocab_size(), labels=labels, maximum_length=LONGEST
        )
        subnet = tiny.supernet(space).materialize(space.middle())
        ids = encode_texts(tokenizer, TEXTS, LONGEST, TEXTS[::-1] if pairs else None).astype(np.int64)
        self.checks = build_checks(subnet, ids[:8], padding=0)
        self.model = folder / "model.onnx"
        self.tokenizer = folder / "tokenizer.json"
        self.tokenizer.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        self.examples: list[str | tuple[str, str]] = [*TEXTS[:2]] if labels else ["the [MASK] sees the sea ."]
        if pairs:
            self.examples = list(zip(TEXTS[:2], TEXTS[2:4], strict=True))
        self.artifact = export(subnet, self.model, self.checks)
        manifest = make_manifest(self.artifact, labels, space.fixed["vocabulary_size"])
        self.manifest = msgspec.structs.replace(manifest, pairs=pairs)


def make_manifest(artifact: Artifact, labels: int, vocabulary_size: int) -> Manifest:
    names = tuple(f"label {number}" for number in range(labels))
    budget = records.Budget(metric="latency_s", limit=2e-3, target="made")
    return Manifest(
        name="made",
        task="classify" if labels else "mlm",
        labels=names,
        artifact=artifact,
        target="made",
        workload=records.Workload(),
        environment=records.Environment(
            machine="x86_64",
            cpu="A Processor",
            cores=2,
            memory_bytes=1 << 30,
            os="Linux",
            kernel="6",
            governor="none",
            python="3.11",
            engine="onnxruntime",
            engine_version="1.31",
            provider="CPUExecutionProvider",
        ),
        threads=1,
        options={"session.intra_op.allow_spinning": "0"},
        maximum_length=LONGEST,
        vocabulary_size=vocabulary_size,
        predicted_s=1.1e-3,
        latency=records.Latency(
            median_s=1.234e-3,
            half_width_s=1e-5,
            raw_median_s=1.2e-3,
            cpu_median_s=1.2e-3,
            mean_s=1.3e-3,
            minimum_s=1e-3,
            p90_s=1.4e-3,
            p99_s=None,
            n=90,
            rounds=15,
            drift=0.0,
            share_kept=1.0,
            status=(),
        ),
        peak_memory_bytes=None,
        quality=records.Quality(metric="accuracy", value=0.875, loss=0.4, n=16, split="test"),
        trivial_quality=0.25,
        budgets=(records.BudgetOutcome(budget=budget, value=1.234e-3, source="measured", met=True),),
        data=records.Data(
            title="made for a test", files={"a.txt": "0" * 64}, sha256="1" * 64, train=12, validation=2, test=2
        ),
        training=records.Training(),
        checkpoint_sha256="c" * 64,
        parity_tolerance=1e-4,
        created_at=dt.datetime(2025, 1, 1, tzinfo=dt.UTC),
        files={},
        versions={"mostool": toolchain.__version__},
    )


def perturbed(subnet: Subnet, by: float) -> Subnet:
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return subnet
