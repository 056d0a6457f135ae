"""Plain modules become files: ONNX artifacts, each proven equal to the module it came from, and bundles that ship."""

from toolchain.export.bundle import read_manifest, verify_files, write_bundle
from toolchain.export.onnx import OPSET, RECIPE, export_onnx
from toolchain.export.parity import TOLERANCE, Checks, build_checks, check_parity
from toolchain.export.session import open_session, predictor

__all__ = [
    "OPSET",
    "RECIPE",
    "TOLERANCE",
    "Checks",
    "build_checks",
    "check_parity",
    "export_onnx",
    "open_session",
    "predictor",
    "read_manifest",
    "verify_files",
    "write_bundle",
]
