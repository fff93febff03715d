"""The precision that the command line asks for. An option that would have no effect is an error."""

import argparse

from kd.export.quantise.scheme import Linears, Scheme
from launcher.errors import LaunchError

FORMATS = {"onnx": ("fp32", "int8", "int8-static", "int4", "auto"), "safetensors": ("bf16", "fp32")}


def check_options(arguments: argparse.Namespace) -> None:
    """Raise LaunchError for a precision that the format lacks, and for options that this precision does not read."""
    precision, known = arguments.precision, FORMATS[arguments.format]
    if precision not in known:
        other = next(form for form, precisions in FORMATS.items() if precision in precisions)
        raise LaunchError(
            f"--precision: expected {', '.join(known[:-1])} or {known[-1]} for {arguments.format}, got {precision}; or set --format {other}"
        )
    quantised = precision not in ("fp32", "bf16")
    four_bits = precision == "int4" or arguments.tables == "int4"
    unread = {
        "--tables": arguments.tables is not None and not quantised,
        "--keep-fp32": bool(arguments.keep_fp32) and not quantised,
        "--activations": arguments.activations is not None and precision not in ("int8", "auto"),
        "--block": arguments.block is not None and not (quantised and four_bits),
        "--calibration-rows": arguments.calibration_rows is not None and precision != "int8-static",
    }
    for option, without_effect in unread.items():
        if without_effect:
            raise LaunchError(f"{option}: expected an option of --precision {precision}, got one that it does not read; leave it out")


def scheme_of(arguments: argparse.Namespace) -> Scheme:
    """The scheme of a precision other than fp32 and bf16; `auto` starts from int8."""
    linears: Linears = "int8" if arguments.precision == "auto" else arguments.precision
    return Scheme(linears, arguments.tables or "int8", arguments.activations or "token", arguments.block or 32)
