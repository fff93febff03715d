"""The student's optimisation step on DeepSpeed: any ZeRO stage, fp32 or bf16, one update at a time.

An update is: counts over all ranks -> micro-batches (forward, backward) -> one clipped AdamW step. The loss arrives already divided by the
update's global token counts. So DeepSpeed's averaging over ranks is undone by multiplying with the world size, and its division by the
number of micro-batches is switched off.

Full fp32 weights and moments go in and out by parameter name, the same at every stage and number of ranks: see `full_state`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from kd.distributed import process_group
from kd.distributed.rank_progress import RankProgress
from kd.terms.schedules import OptimizerSettings
from kd.training.gradient_norm import gradient_norm
from kd.training.settings import TrainSettings

MOMENTS = ("exp_avg", "exp_avg_sq")
DEFAULT_BUCKET = 500_000_000  # elements; DeepSpeed's own
NO_CLIPPING = 1e30  # a clip that never bites: DeepSpeed then still computes the norm and skips a non-finite update


class StudentEngine:
    """A module and its AdamW under DeepSpeed. The module's forward returns (loss share, sums)."""

    def __init__(
        self,
        module: nn.Module,
        train: TrainSettings,
        optimizer: OptimizerSettings,
        precision: str,
        progress: RankProgress | None = None,
        stage: int | None = None,
    ) -> None:
        """stage: the ZeRO stage that DeepSpeed runs; None: `effective_stage`."""
        self.progress = progress or RankProgress()
        self.world = process_group.world_size()
        self.micro_batches = train.micro_batches(self.world)
        self.stage = effective_stage(train.zero_stage, precision, self.world) if stage is None else stage
        self.by_hand = precision == "fp32" and self.stage == 0  # the one case where DeepSpeed neither checks nor skips
        self.clip = train.clip or NO_CLIPPING
        self.module = module
        initial = {name: p.detach().clone().float() for name, p in module.named_parameters() if p.requires_grad}
        self.frozen = {name: p.detach().clone().float() for name, p in module.named_parameters() if not p.requires_grad}
        """Parameters that do not train, in fp32 in host memory. The module's copy may be rounded to bf16, and they may train later."""
        groups = parameter_groups(module, optimizer.weight_decay)
        # A learning rate of 0 while DeepSpeed allocates the moments by a step of its own: it must not move or decay anything.
        # Fused: no temporaries as large as the flat masters, on CPUs and GPUs alike.
        inner = torch.optim.AdamW(groups, lr=0.0, betas=optimizer.betas, eps=optimizer.epsilon, fused=True)
        with process_group.quiet():
            self.engine, *_ = deepspeed.initialize(model=module, optimizer=inner, config=self._config(train, precision))
        self.optimizer = self.engine.optimizer
        if self.world == 1 and not hasattr(self.optimizer, "reduce_gradients") and self.stage < 2:
            self.engine.enable_backward_allreduce = False  # DeepSpeed would copy every gradient twice for a sum over one rank
        if self.stage > 0:  # DeepSpeed's own norm copies each gradient to float64, and its search for NaN reads all of them again
            self.optimizer.get_grad_norm_direct = _global_norm
            self.optimizer.check_overflow = _left_to_the_norm
        self.inner = inner
        self._allocate_moments()
        self.load_full_state(initial, {}, steps=0)

    def _config(self, train: TrainSettings, precision: str) -> dict[str, Any]:
        # DeepSpeed's buckets are for billions of weights: its reduce bucket alone takes 2 GB a rank. One that holds all trainable
        # weights is never flushed early, so the sums stay the same.
        trainable = sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)
        weights = sum(parameter.numel() for parameter in self.module.parameters())
        return {
            "train_micro_batch_size_per_gpu": train.micro_batch,
            "gradient_accumulation_steps": self.micro_batches,
            "train_batch_size": train.global_batch,
            "gradient_clipping": 0.0 if self.by_hand else self.clip,
            "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": self.stage,
                "overlap_comm": False,
                "contiguous_gradients": True,
                "reduce_bucket_size": min(DEFAULT_BUCKET, trainable),
                "allgather_bucket_size": min(DEFAULT_BUCKET, trainable + trainable % 2),  # DeepSpeed refuses an odd number
                "stage3_prefetch_bucket_size": min(DEFAULT_BUCKET // 10, weights),
                "stage3_max_live_parameters": min(2 * DEFAULT_BUCKET, weights),
                "stage3_max_reuse_distance": min(2 * DEFAULT_BUCKET, weights),
                "stage3_param_persistence_threshold": 0,
            },
            "steps_per_print": None,
            "wall_clock_breakdown": False,
        }

    def set_learning_rate(self, value: float) -> None:
        """Use this learning rate from now on."""
        for group in self.inner.param_groups:
            group["lr"] = value
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def micro_step(self, *inputs: Any) -> Tensor:
        """Forward and backward of one micro-batch: the terms' sums [K] float64 over this rank's tokens."""
        self.progress.enter("forward")
        loss, sums = self.engine(*inputs)
        self.progress.enter("backward")
        self.engine.backward(loss * self.world, scale_wrt_gas=False)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()
        return sums

    def finish_update(self) -> Tensor:
        """After the last micro-step: clip and step. The global gradient norm [] fp32; the weights moved if and only if it is finite.

        An update whose gradients hold NaN or infinity is skipped on every rank alike. At ZeRO stage 0 in fp32, AdamW decides that on the
        device, so the host reads nothing here. Elsewhere DeepSpeed reads the norm for that decision, and again for each group of weights.
        """
        self.progress.enter("step")
        if self.by_hand:
            parameters = [p for p in self.module.parameters() if p.requires_grad]
            for parameter in parameters:  # what no term reaches: ZeRO's flat gradients have zeros there, and AdamW decays it
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            norm = gradient_norm(parameter.grad for parameter in parameters if parameter.grad is not None).float()
            nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
            self.inner.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]  # torch's own name: fused AdamW skips
            self.engine.step()
            return norm
        self.engine.step()
        if not self.engine.was_step_applied():
            return torch.tensor(torch.inf)
        norm = self.engine.get_global_grad_norm()
        return torch.as_tensor(0.0 if norm is None else norm)

    def full_state(self) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """(name, fp32 weight, moments) of one parameter after the other, whole, on every rank. Collective: all ranks call it.

        A frozen parameter comes as it is, without moments.
        """
        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:
                yield name, self.frozen[name], {}
            elif self.by_hand:
                state = self.inner.state[parameter]
                yield name, parameter.detach(), {key: state[key] for key in MOMENTS}
            else:
                shape = getattr(parameter, "ds_shape", parameter.shape)
                weight = safe_get_full_fp32_param(parameter).reshape(shape)
                yield name, weight, {key: safe_get_full_optimizer_state(parameter, key).reshape(shape) for key in MOMENTS}

    def load_full_state(self, weights: Mapping[str, Tensor], moments: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Take over full fp32 weights (by name; what is absent stays), moments (zeros where absent) and the AdamW steps behind them.

        The module's own weights must already be these (rounded to its precision); this sets the fp32 masters and the optimizer.
        """
        for name, parameter in self.module.named_parameters():
            shape, device = torch.Size(getattr(parameter, "ds_shape", parameter.shape)), process_group.device()
            weight = weights[name] if name in weights and weights[name].shape == shape else None
            if not parameter.requires_grad:
                self.frozen[name] = self.frozen[name] if weight is None else weight.detach().to("cpu", torch.float32, copy=True)
                continue
            kept = moments.get(name, {}) if weight is not None else {}
            state = {key: kept[key].to(device) if key in kept else torch.zeros(shape, device=device) for key in MOMENTS}
            if self.by_hand:
                if weight is not None:
                    parameter.data.copy_(weight)
                self.inner.state[parameter] = {k: v.clone() for k, v in state.items()}
            else:
                if weight is not None:
                    self._set(parameter, weight.to(device))
                for key, value in state.items():
                    self._set(parameter, value, key)
        for state in self.inner.state.values():
            state["step"] = torch.tensor(float(steps), device=state["exp_avg"].device)

    def close(self) -> None:
        """Let go of the module: hooks and buffers. Nothing else may be called afterwards."""
        self.engine.destroy()
        self.inner.state.clear()
        if hasattr(self.optimizer, "parameter_offload"):  # ZeRO-3: autograd's hooks hold it, unseen by the garbage collector
            for parameter in self.module.parameters():
                parameter.__dict__.clear()
            vars(self.optimizer).clear()

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Give the module's own copies of some parameters, by name, these values (not the masters: see load_full_state). Collective."""
        for name, parameter in self.module.named_parameters():
            if name in weights and weights[name].shape == getattr(parameter, "ds_shape", parameter.shape):
                whole = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_tensor"))
                with whole, torch.no_grad():
                    parameter.copy_(weights[name])

    def _set(self, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Give a parameter's fp32 master (key None) or one of its moments a full value."""
        if not hasattr(parameter, "ds_tensor"):
            safe_set_full_fp32_param(parameter, value) if key is None else safe_set_full_optimizer_state(parameter, value, key)
            return
        share = parameter.ds_tensor.numel()  # ZeRO-3 cuts a parameter into equal shares and pads the last
        flat = nn.functional.pad(value.flatten(), (0, share * self.world - value.numel()))
        local = flat[share * process_group.rank() :][:share]
        if key is None:
            safe_set_local_fp32_param(parameter, local)
        else:
            safe_set_local_optimizer_state(parameter, local, key)

    def _allocate_moments(self) -> None:
        """DeepSpeed makes AdamW's moments in its first step; make them now, so that they can be set before it."""
        if self.by_hand:
            return
        held = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "fp32_groups_flat_partition")  # stages 1-2, 3, bf16 at 0
        for master in next(getattr(self.optimizer, name) for name in held if hasattr(self.optimizer, name)):
            self.inner.state[master] = {key: torch.zeros_like(master) for key in MOMENTS}
        if hasattr(self.optimizer, "_lazy_init_hp_params_optimizer_state"):
            self.optimizer._lazy_init_hp_params_optimizer_state()

    @property
    def bytes_per_rank(self) -> int:
        """Bytes of weights, gradients' masters and moments this rank holds for the student."""
        tensors: dict[int, Tensor] = {}
        for parameter in self.module.parameters():
            held = getattr(parameter, "ds_tensor", parameter)
            tensors[held.data_ptr()] = held
        for state in self.inner.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    tensors[value.data_ptr()] = value
        for group in self.inner.param_groups:
            for parameter in group["params"]:
                tensors[parameter.data_ptr()] = parameter
        return sum(t.numel() * t.element_size() for t in tensors.values())


def effective_stage(zero_stage: int, precision: str, ranks: int) -> int:
    """The ZeRO stage that really runs; the result is the same, to rounding.

    fp32 on one rank: stages 1 and 2 run as 0. There is nothing to share out, and ZeRO would hold each gradient twice.
    bf16: stage 0 runs as 1, because DeepSpeed 0.19 refuses bf16 weights with fp32 accumulation there. Only the fp32 masters and moments
    are shared out over the ranks.
    """
    if precision == "bf16":
        return max(zero_stage, 1)
    return 0 if ranks == 1 and zero_stage < 3 else zero_stage


def _global_norm(gradients: Iterable[Tensor], params: Any = None, norm_type: float = 2) -> Tensor:
    """DeepSpeed's `get_grad_norm_direct`: the norm [] fp32 over the shares of all ranks; -1 if it is not finite."""
    squared = gradient_norm(gradients).to(process_group.device(), torch.float32).square()
    norm = process_group.sum_over_ranks(squared).sqrt()
    return torch.where(torch.isfinite(norm), norm, -1.0)


def _left_to_the_norm(partition_gradients: bool = True) -> None:
    """DeepSpeed's `check_overflow`: nothing, because its step also skips an update whose norm is not finite."""


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices are decayed, vectors (norms and biases) are not."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if _dimensions(p) >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if _dimensions(p) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _dimensions(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))
