"""What the code does where tensors are on a GPU, on the CPU: its branches give what the CPU's give, and half precision
finds no two dtypes that do not go together. A GPU's kernels are not tried.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from worlds import batch_of, featured

from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench_reference.trainers.supervised import sum_of, weighted_terms

# Of what CUDA's autocast casts (ATen/autocast_mode.h), that which occurs here. All else takes dtypes as they come: the
# CPU's autocast brings the two sides of an index_copy to one, CUDA's does not.
TO_HALF = {
    functional.linear,
    functional.scaled_dot_product_attention,
    torch.bmm,
    torch.mm,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    Tensor.matmul,
    torch.einsum,  # of products that are cast
}
TO_FLOAT = {
    functional.layer_norm,
    functional.rms_norm,
    functional.softplus,
    functional.cross_entropy,
    torch.linalg.vector_norm,
    Tensor.sum,
    Tensor.cumsum,
    Tensor.log,
    Tensor.exp,
    Tensor.rsqrt,
    Tensor.pow,
    Tensor.softmax,
    Tensor.logsumexp,
}
IS_CUDA = Tensor.is_cuda.__get__  # type: ignore[attr-defined]


class PretendedGPU(TorchFunctionMode):
    """Inside, every tensor says that it is on a GPU, and is cast as CUDA's autocast would where `half` is given."""

    def __init__(self, half: torch.dtype | None = None) -> None:
        super().__init__()
        self.half = half

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == IS_CUDA:  # each look makes another wrapper
            return True
        kwargs = kwargs or {}
        to = None
        if self.half is not None and "out" not in kwargs:
            to = self.half if func in TO_HALF else torch.float32 if func in TO_FLOAT else None
        if to is not None:
            args = tuple(_cast(each, to) for each in args)
            kwargs = {name: _cast(each, to) for name, each in kwargs.items()}
        return func(*args, **kwargs)


def _cast(value: Any, to: torch.dtype) -> Any:
    return value.to(to) if isinstance(value, Tensor) and value.is_floating_point() else value


BARE: dict[str, Any] = {"width": 8, "history_length": 4, "dropout": 0.0}
MODERN = {
    "heads": 2,
    "norm": "rmsnorm",
    "norm_placement": "pre",
    "activation": "swiglu",
    "positions": "rotary",
    "qk_norm": True,
    "bias": False,
}
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    *(
        (encoder, {"action_conditioning": kind}, "bce", {})
        for encoder in ("causal_transformer", "hstu")
        for kind in ("none", "additive", "gate", "film", "attention_bias")
    ),
    ("causal_transformer", {**MODERN, "action_conditioning": "attention_bias"}, "bce", {}),
    ("causal_transformer", {"next_action": True, "user_id": True, "hashed_ids": [3, 5]}, "bce", {}),
    ("causal_transformer", {"time_features": ["hour", "fourier"], "popularity_windows": [1]}, "bce", {}),
    ("causal_transformer", {"item_features": False, "embeddings": "none", "user_token": False}, "bce", {}),
    ("causal_transformer", {"sparse": True, "similarity": "cosine"}, "bce", {}),
    (
        "causal_transformer",
        {},
        "infonce",
        {"negatives": {"uniform": 4, "in_batch": True, "bank": 6, "hard": 2}, "logq": "negatives", "chunk": 2},
    ),
    ("causal_transformer", {}, "full_softmax", {"label_smoothing": 0.1}),
    ("gnn", {"neighbours": [20, 20], "neighbourhood_dropout": 0.0, "action_conditioning": "none"}, "bce", {}),
    *(("prism", {"heads": 2, "action_conditioning": kind}, "bce", {}) for kind in ("additive", "attention_bias")),
    ("prism", {"steps": 1, "convolution": 0, "nonlinearity": False, "gain": False}, "bce", {}),
    ("diffu_reason", {"heads": 2, "next_action": True}, "full_softmax", {}),
    ("diffu_reason", {"heads": 2}, "denoising", {}),
    (
        "preference_memory",
        {"heads": 2, "segment": 2, "memories": 2, "action_conditioning": "attention_bias"},
        "bce",
        {},
    ),
    ("one_ranker", {"heads": 2, "fake_items": 0, "action_conditioning": "attention_bias"}, "task_prediction", {}),
    ("one_ranker", {"heads": 2, "fake_items": 2}, "value_ranking", {"places": 2, "negatives": 2}),
    ("lazy_decoder", {"heads": 2}, "next_code", {}),
    ("lazy_decoder", {"heads": 2, "action_conditioning": "attention_bias", "next_action": True}, "next_code", {}),
    ("sid_decoder", {"heads": 2}, "next_code", {}),
    ("sid_decoder", {"heads": 2, "verifier": True}, "path_verification", {"negatives": 3, "positions": 2}),
    ("sid_decoder", {"heads": 2, "history": "codes", "action_conditioning": "none"}, "next_code", {"softmax": "tree"}),
]


class Step(nn.Module):
    """A batch's losses, with the parameters in one place."""

    def __init__(self, encoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.losses = encoder, nn.ModuleList([loss])

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return weighted_terms(self.encoder, [(loss, 1.0) for loss in self.losses], batch)


BATCH = batch_of([1, 2, 3, 1], [2, 4], [3], [4, 3, 2])


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def step(request: pytest.FixtureRequest, tmp_path: Any, registry: Registry) -> Step:
    name, options, loss, loss_options = request.param
    data = featured(tmp_path)
    torch.manual_seed(0)
    codes = registry.build("tokenizers", "ids").fit(data)
    encoder = registry.build("encoders", Component(name, {**BARE, **options}), data, codes)
    return Step(encoder, registry.build("losses", Component(loss, loss_options), data, codes))


def run(step: nn.Module, gpu: PretendedGPU | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and each parameter's gradient."""
    step.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    if gpu is None:
        loss = sum_of(step(BATCH))
        loss.backward()
    else:
        with gpu:
            loss = sum_of(step(BATCH))
            gpu.half = None  # backward runs outside autocast
            loss.backward()
    gradients = {name: each.grad for name, each in step.named_parameters() if each.grad is not None}
    return loss.detach(), {name: each.to_dense() if each.is_sparse else each for name, each in gradients.items()}


def names(case: Any) -> str:
    return "-".join([case[0], *map(str, case[1].values()), case[2]])


def test_tensors_say_that_they_are_on_a_gpu() -> None:
    with PretendedGPU():
        assert torch.ones(1).is_cuda
    assert not torch.ones(1).is_cuda


@pytest.mark.parametrize("step", CASES, indirect=True, ids=names)
def test_a_gpus_branches_give_what_the_cpus_give(step: Step) -> None:
    for loss in step.losses:  # a bank that fills would make the second step another one
        loss.eval()
    loss, gradients = run(step, None)
    found, others = run(step, PretendedGPU())
    torch.testing.assert_close(found, loss)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("step", CASES, indirect=True, ids=names)
def test_half_precision_as_a_gpu_casts_it(step: Step, half: torch.dtype) -> None:
    for loss in step.losses:
        loss.eval()
    loss, _ = run(step, None)
    found, gradients = run(step, PretendedGPU(half))
    torch.testing.assert_close(found, loss, rtol=0.05, atol=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
