from __future__ import annotations

import numpy as np
import pytest
import torch

from grbench.errors import PluginError, SuiteError
from grbench.evaluation.ranking import target_ranks
from grbench.hookspecs import KINDS, hookimpl
from grbench.interfaces import Decoder
from grbench.registry.discovery import Registry
from grbench.testing import tiny_store
from grbench.testing.made_up import TableOfVectors, made_up_ranking
from grbench.testing.workbench import SMOKE, Workbench
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.losses.bce import BCE
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.trainers.supervised import Supervised


class WritesCodes(CausalTransformer):
    def code_logits(self, batch): ...
    def start(self, batch): ...
    def step(self, codes, state): ...


class OnlyWritesCodes:
    def __init__(self, data, codes): ...
    def code_logits(self, batch): ...
    def start(self, batch): ...
    def step(self, codes, state): ...


class ReadsCodes(BCE):
    needs = (Decoder,)


class Strangers:
    @hookimpl
    def register_encoders(self, register):
        register("writes_codes", WritesCodes)
        register("only_writes_codes", OnlyWritesCodes)

    @hookimpl
    def register_losses(self, register):
        register("reads_codes", ReadsCodes)


@pytest.fixture
def workbench(tmp_path) -> Workbench:
    registry = Registry.load()
    registry.add("strangers", "strangers", "1", Strangers)
    histories = [[(1 + (user + step) % 9, 1, step) for step in range(6)] for user in range(20)]
    split = LeaveLastOut().split(tiny_store(tmp_path, histories))
    return Workbench(registry, lambda: split, size=SMOKE)


def unasked():
    raise AssertionError("no data is needed for this")


def test_training_steps_change_parameters(workbench):
    made = []
    build = workbench.build
    workbench.build = lambda kind, *rest: made.append(build(kind, *rest)) or made[-1]
    (work,) = workbench.works("losses", "infonce", encoder={"name": "causal_transformer", "width": 4}, batch_size=3)
    encoder = next(part for part in made if isinstance(part, CausalTransformer))
    before = [parameter.clone() for parameter in encoder.parameters()]
    work()
    assert any(not torch.equal(*pair) for pair in zip(before, encoder.parameters(), strict=True))


def test_a_trainers_step_is_timed_as_it_is(workbench):
    steps = []

    class Counted(Supervised):
        def step(self, state, batch):
            steps.append((state.step, len(batch.users)))
            return super().step(state, batch)

    class Mine:
        @hookimpl
        def register_trainers(self, register):
            register("counted", Counted)

    workbench.registry.add("mine", "mine", "1", Mine)
    small = {"name": "causal_transformer", "width": 4}
    counted, supervised = workbench.works("trainers", "counted", "supervised", encoder=small, batch_size=3)
    counted()
    supervised()
    counted()
    assert steps == [(1, 3), (1, 3)]


def test_a_protocols_split_needs_the_store_alone(tmp_path):
    store = tiny_store(tmp_path, [[(1, 1, 1), (2, 1, 2), (3, 1, 3)]] * 4)
    stores = [store]
    (work,) = Workbench(Registry.load(), unasked, store=stores.pop, size=SMOKE).works("protocols", "leave_last_out")
    work()
    assert not stores


def test_every_kind_says_what_is_timed_of_it():
    assert [kind.name for kind in KINDS.values() if not kind.timed] == ["slices", "trackers"]


def test_partners_are_the_first_that_fit(workbench):
    usual = workbench._partners("encoders", ["causal_transformer", "most_popular"], {})
    assert (usual["loss"], usual["tokenizer"], usual["optimizer"]) == ("bce", "ids", "adam")
    assert workbench._partners("losses", ["bce"], {})["encoder"] == "causal_transformer"
    assert workbench._partners("losses", ["reads_codes"], {})["encoder"] == "lazy_decoder"
    assert workbench._partners("losses", ["bce", "reads_codes"], {})["encoder"] == "sid_decoder"
    assert workbench._partners("optimizers", ["adam"], {"loss": "reads_codes"})["encoder"] == "lazy_decoder"
    assert workbench._partners("optimizers", ["adam"], {})["loss"] == "bce"
    assert workbench._partners("encoders", ["causal_transformer"], {"loss": "infonce"})["loss"] == "infonce"


def test_where_no_partner_fits(workbench):
    with pytest.raises(PluginError, match=r"no loss that is installed fits all .*; name one with loss="):
        workbench.works("encoders", "only_writes_codes", "causal_transformer")


@pytest.mark.parametrize(
    ("kind", "parts", "message"),
    [
        (
            "trackers",
            {},
            "nothing of them can be timed here; there are datasets \\(ingest\\), ",
        ),
        ("protocols", {}, "protocols: nothing of them can be timed here"),
        ("losses", {"decoder": "x"}, "decoder: no part of a method; there are encoder, loss"),
        ("encoders", {}, "encoder 'most_popular' has nothing to learn"),
    ],
)
def test_what_cannot_be_timed(workbench, kind, parts, message):
    name = {"trackers": "jsonl", "losses": "bce", "encoders": "most_popular", "protocols": "last_positive"}[kind]
    with pytest.raises(PluginError, match=message):
        workbench.works(kind, name, **parts)


def test_options_are_bound_as_a_suites_are(workbench):
    with pytest.raises(SuiteError, match="did you mean width"):
        workbench.works("encoders", {"name": "causal_transformer", "widht": 3})


def test_searches_of_vectors_need_no_data():
    bench = Workbench(Registry.load(), unasked, size=SMOKE)
    for work in bench.works("retrievers", "exact", {"name": "faiss", "index": "Flat"}):
        work()
    bench.index("exact")()


def test_metrics_of_different_k_score_one_ranking(workbench):
    for work in workbench.works("metrics", "ndcg", {"name": "hit_rate", "k": 30}, "weighted_ndcg"):
        work()


def test_each_works_on_the_same_vectors():
    one, other = TableOfVectors(50, 4), TableOfVectors(50, 4)
    assert torch.equal(one.embed(one.queries(), torch.arange(51))[1], other.items)
    assert torch.equal(one.embed_histories(one.queries()), other.histories)


def test_the_made_up_ranking_is_one(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, 1), (2, 0, 2), (1000, 0, 3)]])
    ranking = made_up_ranking(200, 5, LeaveLastOut().split(store).training)
    assert all(len(set(row)) == 5 for row in ranking.items)
    found = np.where(ranking.targets[:, :1] < 1000, ranking.targets, -1)
    ranks = target_ranks(ranking.items, ranking.scores, np.abs(found), 5)
    assert (ranks[ranking.ranks > 0] == ranking.ranks[ranking.ranks > 0]).all()
    assert 0 < (ranking.ranks > 0).mean() < 1
