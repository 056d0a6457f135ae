"""Plain modules become files: ONNX artifacts, each proven equal to the module it came from, and bundles that ship."""

from toolchain.export.bundle import read_manifest, verify_files, write_bundle
from toolchain.export.onnx import OPSET, RECIPE, export_int8, export_onnx
from toolchain.export.parity import INT8_TOLERANCE, TOLERANCE, Checks, build_checks, check_parity, tolerance
from toolchain.export.quantise import INT8_RECIPE, quantise
from toolchain.export.session import open_session, predictor

__all__ = [
    "INT8_RECIPE",
    "INT8_TOLERANCE",
    "OPSET",
    "RECIPE",
    "TOLERANCE",
    "Checks",
    "build_checks",
    "check_parity",
    "export_int8",
    "export_onnx",
    "open_session",
    "predictor",
    "quantise",
    "read_manifest",
    "tolerance",
    "verify_files",
    "write_bundle",
]
