"""Plain modules become files: ONNX artifacts, each proven equal to the module it came from, and bundles that ship."""

from toolchain.export.assembling import Marks
from toolchain.export.bundle import read_manifest, read_subnet_manifest, verify_files, write_bundle
from toolchain.export.compiling import (
    DeviceKind,
    candidates_for,
    export_encoder,
    matrix_modules,
    precisions_for,
    recipe_for,
)
from toolchain.export.foreign import ForeignModel, export_folder
from toolchain.export.foreign_tuning import fuse_foreign
from toolchain.export.fuse import fuse
from toolchain.export.hub import hub_files
from toolchain.export.inspecting import GivenFile, read_brought
from toolchain.export.parity import (
    INT8_TOLERANCE,
    TOLERANCE,
    Checks,
    build_checks,
    check_parity,
    own_answers,
    tolerance,
)
from toolchain.export.precisions import recipe_of, to_precision
from toolchain.export.run_translation import Marks as TranslationMarks
from toolchain.export.run_translation import Translation
from toolchain.export.session import RUNTIME_ERRORS, open_session, predictor
from toolchain.export.translator import (
    GRAPHS,
    TRANSLATOR_RECIPE,
    ByGraphs,
    Parts,
    assembled,
    build_token_checks,
    export_translator,
    further_files,
    quantise_parts,
)

__all__ = [
    "GRAPHS",
    "INT8_TOLERANCE",
    "RUNTIME_ERRORS",
    "TOLERANCE",
    "TRANSLATOR_RECIPE",
    "ByGraphs",
    "Checks",
    "DeviceKind",
    "ForeignModel",
    "GivenFile",
    "Marks",
    "Parts",
    "Translation",
    "TranslationMarks",
    "assembled",
    "build_checks",
    "build_token_checks",
    "candidates_for",
    "check_parity",
    "export_encoder",
    "export_folder",
    "export_translator",
    "further_files",
    "fuse",
    "fuse_foreign",
    "hub_files",
    "matrix_modules",
    "open_session",
    "own_answers",
    "precisions_for",
    "predictor",
    "quantise_parts",
    "read_brought",
    "read_manifest",
    "read_subnet_manifest",
    "recipe_for",
    "recipe_of",
    "to_precision",
    "tolerance",
    "verify_files",
    "write_bundle",
]
