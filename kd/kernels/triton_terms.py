# mypy: disable-error-code="no-untyped-def"
"""The Triton kernel of the logit terms. Importing this file imports Triton: kd.kernels.fused_terms does it where it is wanted.

One program computes one row of logits. It reads the row in blocks: once for the largest logits and the sums of the softmaxes, once more for
values and gradient. Jensen-Shannon needs one pass more: its gradient needs KL(q || m), and m needs both softmaxes.
A sum is kept for each column of a block, and these are added up at the end. With V = 250,000 and blocks of 2,048, a number goes through
123 + 11 additions in fp32. So a sum is wrong by at most 134 x 2^-24 = 8e-6 of the sum of its absolute values.
"""

import triton
import triton.language as tl

NONE, FORWARD, REVERSE, SYMMETRIC, JENSEN_SHANNON = (tl.constexpr(number) for number in range(5))


@triton.jit
def _logits(products, bias, start, vocabulary, width, BLOCK: tl.constexpr):
    """Logits of a block of columns in fp32; -inf after the vocabulary. Padding is read, so that the loads are of 16 bytes."""
    columns = start + tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(products + columns, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + columns, mask=inside, other=0.0).to(
        tl.float32
    )
    return tl.where(columns < vocabulary, values, float("-inf"))


@triton.jit
def _to_mixture(gap):
    """log q - log m, with gap = log q - log p and m = (p + q) / 2."""
    return 0.6931471805599453 - (tl.maximum(-gap, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(gap))))


# a chunk's part of labels, scales and values begins at any address, and no vocabulary needs a kernel of its own
@triton.jit(
    do_not_specialize=["vocabulary"],
    do_not_specialize_on_alignment=["labels", "soft_scales", "mlm_scales", "mse_scales", "soft_values", "mlm_values", "mse_values"],
)
def rows(
    student,
    teacher,
    student_bias,
    teacher_bias,
    labels,
    soft_scales,
    mlm_scales,
    mse_scales,
    soft_values,
    mlm_values,
    mse_values,
    vocabulary,
    width,
    temperature,
    inverse,
    alpha,
    DIVERGENCE: tl.constexpr,
    LABELS: tl.constexpr,
    MLM: tl.constexpr,
    MSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Values of the terms [n], and the gradient of sum(scale x value) over the student's products [n, width], in their place.

    products: logits without bias, of which the first `vocabulary` columns count. biases: [width] fp32. labels: [n] int64.
    inverse: 1 / temperature. DIVERGENCE: of soft targets, or NONE. LABELS: some term reads the label. MLM, MSE: that term is there.
    Pointers of what is not there are not followed.
    """
    row = tl.program_id(0)
    student += row.to(tl.int64) * width
    if DIVERGENCE != NONE or MSE:
        teacher += row.to(tl.int64) * width

    soft_scale, mlm_scale, mse_scale = 0.0, 0.0, 0.0
    if DIVERGENCE != NONE:
        soft_scale = tl.load(soft_scales + row)
    if MLM:
        mlm_scale = tl.load(mlm_scales + row)
    if MSE:
        mse_scale = tl.load(mse_scales + row)
    soft_factor = soft_scale * (1.0 - alpha) * temperature
    label, label_factor, label_logit = -1, 0.0, 0.0
    if LABELS:
        label = tl.load(labels + row)
        label_factor = tl.where(label >= 0, soft_scale * alpha + mlm_scale, 0.0)
        # before any store: the reductions of the first pass are between this load and the gradient
        label_logit = tl.load(student + label, mask=label >= 0, other=0.0).to(tl.float32)
        label_logit += tl.load(student_bias + label, mask=label >= 0, other=0.0).to(tl.float32)

    most, teacher_most = float("-inf"), float("-inf")
    mass, teacher_mass, label_mass, kl_from_student = 1.0, 1.0, 1.0, 0.0
    if DIVERGENCE != NONE or LABELS:
        sums = tl.zeros([BLOCK], tl.float32)  # of exp((logit - most) / T)
        label_sums = tl.zeros([BLOCK], tl.float32)  # the same at T = 1
        teacher_sums = tl.zeros([BLOCK], tl.float32)
        gap_sums = tl.zeros([BLOCK], tl.float32)  # of exp((logit - most) / T) x (log q - log p), up to the masses
        for start in range(0, vocabulary, BLOCK):
            logits = _logits(student, student_bias, start, vocabulary, width, BLOCK)
            larger = tl.maximum(most, tl.max(logits, 0))
            if LABELS:
                label_sums = label_sums * tl.exp(most - larger) + tl.exp(logits - larger)
            if DIVERGENCE != NONE:
                teachers = _logits(teacher, teacher_bias, start, vocabulary, width, BLOCK)
                teacher_larger = tl.maximum(teacher_most, tl.max(teachers, 0))
                fade = tl.exp((most - larger) * inverse)
                weights = tl.exp((logits - larger) * inverse)
                if DIVERGENCE == REVERSE or DIVERGENCE == SYMMETRIC:  # noqa: SIM109
                    gap = tl.where(logits > float("-inf"), ((logits - larger) - (teachers - teacher_larger)) * inverse, 0.0)
                    # what was added before is about the largest logits of then
                    moved = tl.where(start > 0, ((most - larger) - (teacher_most - teacher_larger)) * inverse, 0.0)
                    gap_sums = fade * (gap_sums + sums * moved) + weights * gap
                sums = sums * fade + weights
                teacher_sums = teacher_sums * tl.exp((teacher_most - teacher_larger) * inverse) + tl.exp(
                    (teachers - teacher_larger) * inverse
                )
                teacher_most = teacher_larger
            most = larger
        if LABELS:
            label_mass = tl.sum(label_sums, 0)
        if DIVERGENCE != NONE:
            mass, teacher_mass = tl.sum(sums, 0), tl.sum(teacher_sums, 0)
    offset = 0.0
    if DIVERGENCE != NONE:
        offset = tl.log(mass) - tl.log(teacher_mass)
    if DIVERGENCE == REVERSE or DIVERGENCE == SYMMETRIC:  # noqa: SIM109
        kl_from_student = tl.sum(gap_sums, 0) / mass - offset
    if DIVERGENCE == JENSEN_SHANNON:
        sums = tl.zeros([BLOCK], tl.float32)  # of q (log q - log m)
        for start in range(0, vocabulary, BLOCK):
            logits = _logits(student, student_bias, start, vocabulary, width, BLOCK) - most
            teachers = _logits(teacher, teacher_bias, start, vocabulary, width, BLOCK) - teacher_most
            gap = tl.where(logits > float("-inf"), (logits - teachers) * inverse - offset, 0.0)
            sums += tl.exp(logits * inverse) * _to_mixture(gap)
        kl_from_student = tl.sum(sums, 0) / mass

    teacher_values = tl.zeros([BLOCK], tl.float32)  # of p (log p - log q), or p (log p - log m)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < vocabulary
        logits = _logits(student, student_bias, start, vocabulary, width, BLOCK)
        gradient = tl.zeros([BLOCK], tl.float32)
        if LABELS:
            gradient += label_factor * (tl.exp(logits - most) / label_mass - tl.where(columns == label, 1.0, 0.0))
        if DIVERGENCE != NONE or MSE:
            teachers = _logits(teacher, teacher_bias, start, vocabulary, width, BLOCK)
            if MSE:
                difference = tl.where(inside, logits - teachers, 0.0)
                squares += difference * difference
                gradient += mse_scale * difference
            if DIVERGENCE != NONE:
                q = tl.exp((logits - most) * inverse) / mass
                p = tl.exp((teachers - teacher_most) * inverse) / teacher_mass
                gap = tl.where(inside, ((logits - most) - (teachers - teacher_most)) * inverse - offset, 0.0)
                if DIVERGENCE == FORWARD:
                    teacher_values -= p * gap
                    gradient += soft_factor * (q - p)
                if DIVERGENCE == REVERSE:
                    gradient += soft_factor * q * (gap - kl_from_student)
                if DIVERGENCE == SYMMETRIC:
                    teacher_values -= p * gap
                    gradient += soft_factor * 0.5 * (q * (gap - kl_from_student + 1.0) - p)
                if DIVERGENCE == JENSEN_SHANNON:
                    to_mixture = _to_mixture(gap)
                    teacher_values += p * (to_mixture - gap)
                    gradient += soft_factor * 0.5 * q * (to_mixture - kl_from_student)
        tl.store(student + columns, gradient.to(student.dtype.element_ty), mask=columns < width)

    cross_entropy = 0.0
    if LABELS:
        cross_entropy = tl.where(label >= 0, tl.log(label_mass) - (label_logit - most), 0.0)
    if MLM:
        tl.store(mlm_values + row, tl.where(mlm_scale > 0, cross_entropy, 0.0))
    if MSE:
        tl.store(mse_values + row, tl.where(mse_scale > 0, 0.5 * tl.sum(squares, 0), 0.0))
    if DIVERGENCE != NONE:
        divergence = tl.sum(teacher_values, 0)
        if DIVERGENCE == REVERSE:
            divergence = kl_from_student
        if DIVERGENCE == SYMMETRIC or DIVERGENCE == JENSEN_SHANNON:  # noqa: SIM109
            divergence = 0.5 * (divergence + kl_from_student)
        value = (1.0 - alpha) * temperature * temperature * divergence
        if LABELS:
            value += alpha * cross_entropy
        tl.store(soft_values + row, tl.where(soft_scale > 0, value, 0.0))
