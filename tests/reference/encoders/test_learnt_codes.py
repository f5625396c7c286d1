"""sid_decoder with codes that are learnt on with it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from grbench.data.split import Split
from grbench.errors import SuiteError
from grbench.evaluation.ranking import Ranker, evaluating
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.check_world import check_world
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.run_checks import run_check
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainingResult, TrainState
from grbench.types import Codes
from grbench_reference.retrievers.beam import Beam
from grbench_reference.trainers.grpo import GRPO
from grbench_reference.trainers.policy import PolicyOptions

REGISTRY = Registry.load()
CODER = {"coder_widths": [8]}
OPTIONS = {"width": 8, "blocks": 1, "dropout": 0.0, "history_length": 8, "learn_codes": True, **CODER}


@pytest.fixture(scope="module")
def fitted() -> Codes:
    options = {"sizes": [12, 12], "steps": 10, "batch_size": 32, "collision": "none", **CODER}
    return made("tokenizers", "uni_sid", options, check_world().training_data(), fit=True)


def made(kind: str, name: str, options: dict[str, Any], *objects: Any, fit: bool = False) -> Any:
    torch.manual_seed(0)
    if fit:
        return REGISTRY.build(kind, Component(name, options)).fit(*objects)
    return REGISTRY.build(kind, Component(name, options), *objects)


def trained(codes: Codes, steps: int, **options: Any) -> Any:
    data = check_world().training_data()
    encoder = made("encoders", "sid_decoder", {**OPTIONS, **options}, data, codes).train()
    loss = made("losses", "next_code", {}, data, codes)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)
    batch = check_world().batch(encoder.history_length, first_events=True)
    for _ in range(steps):
        with encoder.one_pass() as own_terms:
            terms: dict[str, Tensor] = {**loss(encoder, batch), **own_terms()}
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimizer.step()
    encoder.terms = terms if steps else {}
    return encoder.eval()


def test_training_begins_with_the_codes_of_the_tokenizer(fitted: Codes) -> None:
    encoder = trained(fitted, 0)
    present = torch.from_numpy(check_world().store.catalogue.embeddings["content"].present.copy())
    assert torch.equal(encoder.codes().table[present], fitted.table[present])  # the others had none of the coder's
    assert encoder.codes().sizes == fitted.sizes
    fixed = made("encoders", "sid_decoder", {"width": 8}, check_world().training_data(), fitted)
    assert fixed.codes() is None


def test_codes_change_in_training_and_search_uses_the_last_ones(fitted: Codes) -> None:
    encoder = trained(fitted, 20)
    assert encoder.terms.keys() == {
        *("next_code_1", "next_code_2"),
        *("code_levels", "code_embedding", "code_reconstruction"),
    }
    now = encoder.codes()
    assert (now.table != fitted.table).any()
    assert torch.equal(encoder.item_codes(torch.arange(1, len(now.table))), now.table[1:])
    split: Split = check_world().split
    ranker = Ranker(Beam(width=60), encoder, split, fitted, k=5)
    assert torch.equal(ranker.codes.table, now.table)
    with evaluating(encoder):
        found = ranker.rank(split.test)
    # A list's score is the likelihood of the codes that the item has now.
    batch = check_world().queries(encoder.history_length)
    with torch.no_grad():
        logits, state = encoder.start(batch)
        codes = now.table[torch.from_numpy(found.items[: len(batch.users), 0])]
        scores = logits.log_softmax(1).gather(1, codes[:, :1])
        logits, _ = encoder.step(codes[:, 0], state)
        scores = scores + logits.log_softmax(1).gather(1, codes[:, 1:])
    torch.testing.assert_close(
        scores[:, 0], torch.from_numpy(found.scores[: len(batch.users), 0]), rtol=1e-4, atol=1e-4
    )


def test_the_losses_of_the_decoder_reach_the_coder_through_the_history(fitted: Codes) -> None:
    weights = {"level_weight": 0.0, "embedding_weight": 0.0, "reconstruction_weight": 0.0}
    encoder, before = trained(fitted, 1, **weights), trained(fitted, 0, **weights)
    moved = [
        name
        for (name, one), other in zip(encoder.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(one, other) and ".coder." in name
    ]
    assert any("codebooks" in name for name in moved)
    assert any("trunk" in name for name in moved)


def test_what_does_not_go_together_is_said(fitted: Codes) -> None:
    data = check_world().training_data()
    with pytest.raises(SuiteError, match="learn_codes: needs `history: items`"):
        made("encoders", "sid_decoder", {**OPTIONS, "history": "codes"}, data, fitted)
    with pytest.raises(SuiteError, match="uni_sid has a coder of another shape"):
        made("encoders", "sid_decoder", {**OPTIONS, "coder_widths": [9]}, data, fitted)
    encoder = made("encoders", "sid_decoder", OPTIONS, data, fitted)
    loss = made("losses", "next_code", {"softmax": "tree"}, data, fitted)
    batch = check_world().batch(8, first_events=True)
    with pytest.raises(SuiteError, match=r"loss\.softmax: tree is of the tokenizer's codes"):
        loss(encoder, batch)
    judged = made("encoders", "sid_decoder", {**OPTIONS, "verifier": True, "value_head": True}, data, fitted)
    for name in "path_verification", "path_value":
        with pytest.raises(SuiteError, match=f"loss {name}: its paths are of the tokenizer's codes"):
            made("losses", name, {}, data, fitted)(judged, batch)


def test_reward_needs_codes_that_stay(fitted: Codes) -> None:
    data = check_world().training_data()
    encoder = made("encoders", "sid_decoder", OPTIONS, data, fitted)
    losses = [(made("losses", "next_code", {}, data, fitted), 1.0)]
    for given, finished, refused in ([], 0, True), (losses, 1, True), ([], 1, False):
        trainer, options = GRPO(policy=PolicyOptions(samples=2)), TrainingOptions()
        parts: Any = encoder, given, trainer, lambda _: [], options
        before = [TrainingResult()] * finished
        state = TrainState(*parts, data=data, codes=fitted, device="cpu", seed=0, finished=before)
        with pytest.raises(SuiteError, match="trainer grpo: items keep the codes") if refused else nullcontext():
            state.begin()


@pytest.mark.parametrize("check", CHECKS["encoders"], ids=lambda check: check.name)
def test_conformance(check: Any) -> None:
    """As of the other encoders, whose options are the defaults."""
    outcome = run_check(check, CheckedPlugin(REGISTRY, "encoders", "sid_decoder", OPTIONS))
    assert outcome.verdict != "failed", outcome.seen
