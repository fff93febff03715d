"""The kernel of the logit terms against float64 and torch's own gradients, in Triton's interpreter. Its code for GPUs is compiled."""

import itertools
import re
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from interpreter import interpreter, need_triton

from kd.kernels import fused_terms
from kd.kernels.fused_terms import DIVERGENCES, Form, Logits

pytestmark = pytest.mark.slow
FP32, BF16 = torch.float32, torch.bfloat16
FORMS = [
    form
    for divergence, labels, mlm, mse in itertools.product(DIVERGENCES, (False, True), (False, True), (False, True))
    if (form := Form(divergence, labels, mlm, mse)).names and not (labels and divergence == "none")
]


@pytest.fixture(scope="module")
def pool():
    need_triton()
    with interpreter() as pool:
        yield pool


def remote(form, student, teacher, vocabulary, labels, scales, temperature, alpha):
    """(values, gradient with its padding). `run` works in place, and the caller's tensors are in shared memory."""
    student = replace(student, products=student.products.clone())
    values = fused_terms.run(form, student, teacher, vocabulary, labels, scales, temperature, alpha)
    return values, student.products


def batch_of(vocabulary, labels, dtype=FP32, size=1.0):
    """(student, teacher, labels): NaN in the padding, which may be anything."""
    draw = torch.Generator().manual_seed(3)
    sides = []
    for _ in range(2):
        products = torch.full((len(labels), fused_terms.width(vocabulary)), float("nan"))
        products[:, :vocabulary] = torch.randn(len(labels), vocabulary, generator=draw) * size
        bias = torch.randn(products.shape[1], generator=draw)
        sides.append(Logits(products.to(dtype), bias.to(dtype)))
    return *sides, torch.tensor(labels)


def exact(form, student, teacher, labels, scales, temperature, alpha):
    """(values, gradient) of the formulas, float64."""
    cross_entropy = F.cross_entropy(student, labels, reduction="none", ignore_index=-100)
    log_q, log_p = (F.log_softmax(logits / temperature, -1) for logits in (student, teacher))
    q, p = log_q.exp(), log_p.exp()
    log_m = torch.logaddexp(log_q, log_p) - torch.tensor(2.0, dtype=torch.float64).log()
    soft = {
        "none": lambda: None,
        "forward": lambda: (p * (log_p - log_q)).sum(-1),
        "reverse": lambda: (q * (log_q - log_p)).sum(-1),
        "symmetric": lambda: 0.5 * ((p - q) * (log_p - log_q)).sum(-1),
        "jensen_shannon": lambda: 0.5 * (p * (log_p - log_m)).sum(-1) + 0.5 * (q * (log_q - log_m)).sum(-1),
    }[form.divergence]()
    values = []
    if soft is not None:
        values.append(alpha * cross_entropy + (1 - alpha) * temperature**2 * soft)
    if form.mlm:
        values.append(cross_entropy)
    if form.mse:
        values.append(0.5 * (student - teacher).square().sum(-1))
    counted = torch.stack([torch.where(scale > 0, value, 0.0) for value, scale in zip(values, scales, strict=True)])
    (gradient,) = torch.autograd.grad((counted * scales).sum(), student)
    return counted.detach(), gradient


def check(pool, form, batch, vocabulary, temperature=2.0, alpha=0.3, size=1.0, scales=None):
    student, teacher, labels = batch
    alpha = alpha if form.labels else 0.0
    if scales is None:
        scales = torch.rand(len(form.names), len(labels), generator=torch.Generator().manual_seed(1))
        scales[0, -1] = 0.0
    sides = student, teacher if form.reads_teacher else None
    values, gradient = pool.submit(remote, form, *sides, vocabulary, labels, list(scales), temperature, alpha).result()
    own, other = ((one.products.double() + one.bias.double())[:, :vocabulary] for one in (student, teacher))
    expected, slope = exact(form, own.requires_grad_(), other, labels, scales.double(), temperature, alpha)
    unit = 1e-6 * max(1.0, temperature**2) * (1 if size == 1 else 30)  # T^2 weighs a divergence's rounding; thousands round at 1e-4
    torch.testing.assert_close(values.double(), expected, rtol=unit, atol=unit * max(1.0, float(expected.abs().max())))
    rounding = 2**-7 if gradient.dtype == BF16 else unit  # the interpreter cuts bf16 off, and a GPU rounds it
    close = {"rtol": rounding, "atol": unit * max(1.0, float(slope.abs().max()))}
    torch.testing.assert_close(gradient[:, :vocabulary].double(), slope, **close)
    assert (gradient[:, vocabulary:] == 0).all(), "padding goes into no sum"


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_set_of_terms_equals_its_formulas(pool, form):
    check(pool, form, batch_of(1000, [-100, 7, 999]), 1000)


@pytest.mark.parametrize("size", [1.0, 100.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("divergence", DIVERGENCES[1:])
def test_any_temperature_on_large_logits(pool, divergence, temperature, size):
    check(pool, Form(divergence, labels=True), batch_of(1000, [3, -100], size=size), 1000, temperature, 0.5, size)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_label_counts_nothing_or_alone(pool, alpha):
    check(pool, Form("forward", labels=True), batch_of(1000, [3, -100]), 1000, alpha=alpha)


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("vocabulary", [1, 7, 2048, 30_522])
def test_any_vocabulary_in_both_dtypes(pool, vocabulary, dtype):
    check(pool, Form("reverse", labels=True, mlm=True, mse=True), batch_of(vocabulary, [vocabulary - 1, 0], dtype), vocabulary)
    check(pool, Form("jensen_shannon"), batch_of(vocabulary, [-100], dtype), vocabulary, scales=torch.tensor([[0.7]]))


def test_a_quarter_of_a_million_words_in_fp32(pool):
    """Blocks of 2,048 add 123 numbers to each sum, in fp32."""
    check(pool, Form("reverse", labels=True), batch_of(250_007, [5]), 250_007, scales=torch.tensor([[0.7]]))


@pytest.mark.parametrize("labels", [[-100, -100], [0, 1], [4]], ids=["none", "all", "one"])
def test_any_number_of_labels(pool, labels):
    check(pool, Form("symmetric", labels=True, mlm=True), batch_of(7, labels), 7)


def test_rows_of_scale_0_have_no_value_and_no_gradient(pool):
    form = Form("forward", labels=True, mlm=True, mse=True)
    student, teacher, labels = batch_of(1000, [3, -100])
    values, gradient = pool.submit(remote, form, student, teacher, 1000, labels, list(torch.zeros(3, 2)), 2.0, 0.5).result()
    assert (values == 0).all()
    assert (gradient == 0).all()


def test_no_row_is_no_work(pool):
    student, teacher, labels = batch_of(7, [])
    values, _ = pool.submit(remote, Form("forward"), student, teacher, 7, labels.long(), list(torch.zeros(1, 0)), 2.0, 0.0).result()
    assert values.shape == (1, 0)


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_equal_distributions_do_not_differ_whatever_is_added_to_all_logits(pool, shift):
    """The largest logits come last, so sums about earlier ones are corrected in every block."""
    logits = torch.linspace(-50, 400, 5000)[None]
    pad = (0, fused_terms.width(5000) - 5000)
    for divergence in DIVERGENCES[1:]:
        student, teacher = (Logits(F.pad(one, pad), torch.zeros(fused_terms.width(5000))) for one in (logits, logits + shift))
        values, gradient = pool.submit(
            remote, Form(divergence), student, teacher, 5000, torch.tensor([-100]), [torch.ones(1)], 1.0, 0.0
        ).result()
        assert abs(float(values)) < 5e-5, divergence  # logits + shift round at 3e-5
        assert float(gradient.abs().max()) < 5e-5


def test_the_kernel_is_compared_with_plain_formulas_before_it_is_used(pool):
    form = Form("jensen_shannon", labels=True, mlm=True, mse=True)
    assert pool.submit(fused_terms.largest_error, form, FP32, FP32, "cpu").result() < 1e-6
    assert pool.submit(fused_terms.largest_error, form, BF16, BF16, "cpu").result() < 1e-6  # besides the gradient's rounding
    assert pool.submit(in_a_function, Form("reverse", mlm=True)).result() is None
    assert pool.submit(wrong, Form("forward", labels=True)).result().startswith("the kernel differs from the plain formulas by ")


def in_a_function(form):
    """The reason where a schedule brings a new form within the head, whose autograd function has gradients off."""
    with torch.no_grad():
        return fused_terms._problem.__wrapped__(form, FP32, BF16, "cpu")


def wrong(form):
    """The reason for which a process refuses a kernel that takes each logit twice."""
    plain = fused_terms.run

    def run(form, student, *rest):
        student.products.mul_(2)
        return plain(form, student, *rest)

    fused_terms.run = run
    try:
        return fused_terms._problem.__wrapped__(form, FP32, FP32, "cpu")
    finally:
        fused_terms.run = plain


def test_a_kernel_that_does_not_run_is_one_line_and_no_error():
    need_triton()
    reason = fused_terms.problem(Form("forward"), FP32, FP32, torch.device("cpu"))
    assert reason is not None
    assert reason.startswith("the kernel did not run: ")
    assert "\n" not in reason


def test_without_triton_the_reason_is_that(monkeypatch):
    monkeypatch.setattr(fused_terms, "find_spec", lambda name: None)
    assert fused_terms._problem.__wrapped__(Form("forward"), FP32, FP32, "cpu") == "Triton is not installed"


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_it_compiles_for_gpus_without_spilled_registers(capability, dtype, tmp_path, monkeypatch):
    """Wide loads are those of padded rows: without them a thread reads one column at a time."""
    need_triton()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    triton, rows = import_module("triton"), import_module("kd.kernels.triton_terms").rows
    compiler, backends = import_module("triton.compiler"), import_module("triton.backends.compiler")
    wide = {"student", "teacher", "student_bias", "teacher_bias"}
    kinds = dict.fromkeys(rows.arg_names, "*fp32") | dict.fromkeys(wide, f"*{dtype}") | {"labels": "*i64"}
    kinds |= dict.fromkeys(("vocabulary", "width"), "i32") | dict.fromkeys(("temperature", "inverse", "alpha"), "fp32")
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    for divergence in ("forward", "symmetric", "jensen_shannon"):  # reverse is a part of symmetric
        constants = {"DIVERGENCE": DIVERGENCES.index(divergence), "LABELS": True, "MLM": True, "MSE": True, "BLOCK": fused_terms.BLOCK}
        places = {(rows.arg_names.index(name),): value for name, value in constants.items()}
        aligned = {(rows.arg_names.index(name),): [["tt.divisibility", 16]] for name in (*wide, "width")}
        source = compiler.ASTSource(rows, kinds | dict.fromkeys(constants, "constexpr"), places, aligned)
        target = backends.GPUTarget("cuda", capability, 32)
        made = triton.compile(source, target=target, options={"num_warps": fused_terms.WARPS})
        assert made.asm["cubin"]
        (tmp_path / "rows.ptx").write_text(made.asm["ptx"])
        architecture = f"sm_{capability}{'a' if capability >= 90 else ''}"
        command = [assembler, "-v", f"--gpu-name={architecture}", tmp_path / "rows.ptx", "-o", tmp_path / "rows.cubin"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert re.findall(r"(\d+) bytes spill (?:stores|loads)", told) == ["0", "0"], f"{divergence}: {told}"
        (registers,) = map(int, re.findall(r"Used (\d+) registers", told))
        assert registers <= 64, f"{divergence}: two rows of {fused_terms.WARPS} warps fill a multiprocessor's 65,536 registers"
        assert re.search(r"ld\.global\.v[24]\.b32", made.asm["ptx"]), divergence
        assert "mul.lo.s64" in made.asm["ptx"], "a row begins at more than 2^31"
        assert dtype == "fp32" or "cvt.rn.bf16" in made.asm["ptx"], "the gradient is rounded to the nearest"
