"""Figures of devices, each with its source: peak rates, memory, links, power. A file in YAML has the same keys for a device of your own.

Peak rates are those of dense matrices. What rests on a datasheet is an estimate; `stillhouse plan --calibrate` writes measured figures.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from launcher.config.yaml_file import dump_yaml, parse_yaml, read_yaml
from launcher.errors import LaunchError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rates = dict[str, Positive]


class EngineCost(BaseModel):
    """The time of a micro-batch that does not depend on its tokens, and of a step, under one ZeRO stage on one rank."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer_us: NotNegative
    """Microseconds of starting a layer's operations, forward and backward."""
    weight_ns: dict[int, tuple[NotNegative, NotNegative, NotNegative]]
    """By weights of the embeddings: nanoseconds of a layer's weight and of an embedding's weight a micro-batch, of a weight a step."""


class Measured(BaseModel):
    """Rates that `--calibrate` measured, on `threads` threads of one process. Keys of the inner tables are sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: Annotated[int, Field(ge=1)]
    gemm: dict[str, dict[int, Positive]]
    """TFLOP/s of [tokens, D] x [D, 4 D] by precision and D."""
    attention: dict[str, dict[int, tuple[NotNegative, NotNegative, NotNegative, NotNegative]]]
    """ns per score (head, query, key) by `precision kernel` and window: forward, forward per value of a head, and backward alike."""
    elementwise: dict[str, tuple[Positive, Positive]]
    """GB/s of GELU, sum and LayerNorm by precision, forward and backward."""
    head: dict[str, tuple[NotNegative, Positive, NotNegative]]
    """The chunked head by precision: ns per logit of the terms, TFLOP/s of its products, ns per weight of the decoder a micro-batch."""
    optimizer: Positive
    """Nanoseconds per weight of an AdamW step with clipping."""
    all_reduce: tuple[NotNegative, Positive] | None = None
    """Seconds of one call between two processes, and GB/s beyond that."""
    all_reduce_bf16: tuple[NotNegative, Positive] | None = None
    """The same of bf16."""
    engine: dict[str, EngineCost] = {}
    """By `precision ZeRO-stage`. Files of earlier versions have none."""
    teacher_layer_us: dict[str, NotNegative] = {}
    """By teacher mode: microseconds that a layer of it takes longer on two ranks, without its bytes."""
    together: Positive = 1.0
    """Time of the head while both of two ranks compute it, over its time alone: ranks share caches and memory."""
    wall_per_cpu: Positive = 1.0
    """Wall time over CPU time while it was measured: above 1.2 other processes had the cores."""


class Device(BaseModel):
    """One kind of GPU or processor. Rates are per device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tflops: Rates
    """Peak TFLOP/s of dense matrix products by precision: fp32, bf16, fp16."""
    memory_gb: Positive
    bandwidth_gb: Positive
    """GB/s of its memory."""
    link_gb: Positive
    """GB/s to a device of the same node, in one direction."""
    network_gb: Positive
    """GB/s of a node to other nodes, in one direction."""
    latency_us: NotNegative = 10.0
    """Microseconds of one step of a collective."""
    watts: NotNegative = 0.0
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4
    """The share of the peak that a training step reaches."""
    libraries_gb: NotNegative = 0.6
    """Memory that libraries take on the device before a model is there."""
    spare: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """The share of memory that fragmentation leaves unusable."""
    is_cpu: bool = False
    """True: models, gradients and libraries share the host's memory, and ranks share the host."""
    source: str
    measured: Measured | None = None

    def peak(self, precision: str) -> float | None:
        """FLOP/s of a precision; None where the device does not multiply it natively."""
        rate = self.tflops.get(precision)
        return None if rate is None else rate * 1e12


_NVIDIA = "NVIDIA data sheet"
DEVICES: dict[str, Device] = {
    "h100": Device(
        name="H100 SXM 80 GB",
        tflops={"fp32": 67.0, "bf16": 989.4, "fp16": 989.4},
        memory_gb=80,
        bandwidth_gb=3350,
        link_gb=450,
        network_gb=400,
        watts=700,
        source=f"{_NVIDIA} 'H100 Tensor Core GPU'; NVLink 900 GB/s in both directions; DGX H100: eight 400 Gb/s adapters a node",
    ),
    "a100": Device(
        name="A100 SXM 80 GB",
        tflops={"fp32": 19.5, "bf16": 312.0, "fp16": 312.0},
        memory_gb=80,
        bandwidth_gb=2039,
        link_gb=300,
        network_gb=200,
        watts=400,
        source=f"{_NVIDIA} 'A100 Tensor Core GPU'; NVLink 600 GB/s in both directions; DGX A100: eight 200 Gb/s adapters a node",
    ),
    "v100": Device(
        name="V100 SXM2 16 GB",
        tflops={"fp32": 15.7, "fp16": 125.0},
        memory_gb=16,
        bandwidth_gb=900,
        link_gb=150,
        network_gb=50,
        watts=300,
        utilisation=0.3,
        source=f"{_NVIDIA} 'V100 Tensor Core GPU'; NVLink 300 GB/s in both directions; DGX-1: four 100 Gb/s adapters a node",
    ),
    "l4": Device(
        name="L4 24 GB",
        tflops={"fp32": 30.3, "bf16": 121.0, "fp16": 121.0},
        memory_gb=24,
        bandwidth_gb=300,
        link_gb=32,
        network_gb=12.5,
        watts=72,
        source=f"{_NVIDIA} 'L4 Tensor Core GPU' (half of its rates with sparsity); PCIe 4.0 x16; one 100 Gb/s adapter a node is assumed",
    ),
    "cpu": Device(
        name="one core of a server CPU",
        tflops={"fp32": 0.08, "bf16": 0.16},
        memory_gb=16,
        bandwidth_gb=10,
        link_gb=2,
        network_gb=1.25,
        latency_us=200,
        watts=10,
        utilisation=0.6,
        libraries_gb=0.47,
        is_cpu=True,
        source="assumed: an AVX-512 core with bf16 at 2.5 GHz; use --calibrate for figures of this machine",
    ),
}


def device_of(name: str) -> Device:
    """A known device, or the one that a YAML file describes. Raises LaunchError."""
    if name in DEVICES:
        return DEVICES[name]
    if not Path(name).is_file():
        raise LaunchError(f"--gpu {name}: expected one of {', '.join(DEVICES)} or a file, got neither; correct it")
    where, text = read_yaml(name)
    try:
        return Device.model_validate(parse_yaml(where, text))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] in ("missing", "extra_forbidden") else f", got {first['input']!r}"
        raise LaunchError(f"{where}: {key}: {first['msg'].lower()}{got}; see docs/planning.md") from None


def device_text(device: Device) -> str:
    """A device as YAML that `device_of` reads."""
    return dump_yaml(device.model_dump(mode="json", exclude_none=True))
