"""Tokenizers' fits and training steps: forward, backward and the update of the parameters."""

from __future__ import annotations

import pytest
import torch
from methods import ANCHOR, cases


@pytest.mark.parametrize(("tokenizer", "parts", "like"), cases("tokenizers"))
def test_tokenizer_fit(keeps_up, workbench, tokenizer, parts, like) -> None:
    (work,) = workbench.works("tokenizers", tokenizer, **parts)
    keeps_up(work, *like)


@pytest.mark.parametrize(("encoder", "parts", "like"), cases("encoders"))
def test_training_step(keeps_up, workbench, encoder, parts, like) -> None:
    (work,) = workbench.works("encoders", encoder, **parts)
    keeps_up(work, *like, seconds=5)


@pytest.mark.parametrize(("loss", "parts", "like"), cases("losses"))
def test_loss(keeps_up, workbench, loss, parts, like) -> None:
    """A training step with each loss."""
    (work,) = workbench.works("losses", loss, **parts)
    keeps_up(work, *like)


@pytest.mark.parametrize(("trainer", "parts", "like"), cases("trainers"))
def test_trainer(keeps_up, workbench, trainer, parts, like) -> None:
    """A training step by each trainer."""
    (work,) = workbench.works("trainers", trainer, **{"batch_size": workbench.size.queries // 16, **parts})
    keeps_up(work, *like)


@pytest.mark.parametrize(("optimizer", "parts", "like"), cases("optimizers"))
def test_optimizer(keeps_up, workbench, optimizer, parts, like) -> None:
    """A training step with each optimizer, on few users: dense tables are updated whole, whatever the batch."""
    (work,) = workbench.works("optimizers", optimizer, **{"batch_size": workbench.size.queries // 16, **parts})
    keeps_up(work, *like)


def test_item_tower(keeps_up, workbench) -> None:
    """The vectors of all items, as the candidates of a search get theirs: id, all features and emb_81."""
    encoder, _ = workbench.model(ANCHOR)
    encoder.eval()
    items = torch.arange(1, workbench.split.training.catalogue.num_items + 1)

    def embed() -> None:
        with torch.no_grad():
            encoder.embed_items(items)

    keeps_up(embed, "compute", "memory")
