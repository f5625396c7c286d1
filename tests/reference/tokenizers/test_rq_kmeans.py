"""Residual k-means: a world whose clusters are known, and what must hold of the codes under every policy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from real_data import SAMPLE, needs_sample
from worlds import batch_of, made_with

from grbench.data.store import Embedding
from grbench.data.training_data import TrainingData
from grbench.errors import DataError, SuiteError
from grbench.registry.options import bind
from grbench.testing import tiny_store
from grbench_reference.codes.item_vectors import EmbeddingVectors, project_svd
from grbench_reference.codes.random_k import draw, neighbours_of
from grbench_reference.encoders.sid_decoder import SIDDecoder
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.retrievers.beam import Beam
from grbench_reference.tokenizers.cooccurrence import cooccurrence_vectors, count_pairs, neighbour_means
from grbench_reference.tokenizers.rq_kmeans import RQKMeans

SIX = [[(item, 1, item) for item in (1, 2, 3, 4, 5, 6)]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    faiss.omp_set_num_threads(1)


def world(folder: Path, vectors: np.ndarray | dict[str, np.ndarray], histories: Any = SIX) -> TrainingData:
    embeddings = vectors if isinstance(vectors, dict) else {"81": vectors}
    store = tiny_store(folder, histories, num_items=len(next(iter(embeddings.values()))), embeddings=embeddings)
    return LeaveLastOut().split(store).training


def clusters(seed: int = 0) -> np.ndarray:
    """64 items: four far corners, about each four small corners, four items at each of these."""
    random = np.random.default_rng(seed)
    big = np.repeat(np.eye(8)[:4], 16, axis=0)
    small = np.tile(np.repeat(np.eye(8)[4:] * 0.2, 4, axis=0), (4, 1))
    return (big + small + random.normal(size=(64, 8)) * 0.002).astype(np.float32)


def shares(codes: torch.Tensor) -> list[int]:
    """How many items have each item's code."""
    _, of, counts = torch.unique(codes[1:], dim=0, return_inverse=True, return_counts=True)
    return counts[of].tolist()


def test_levels_find_the_planted_clusters(tmp_path: Path) -> None:
    codes = made_with(RQKMeans, sizes=[4, 4], collision="extra_level").fit(world(tmp_path, clusters()))
    table = codes.table[1:, :2].reshape(16, 4, 2)
    assert (table == table[:, :1]).all()  # the four items at a corner share their code
    assert len(torch.unique(table[:, 0], dim=0)) == 16
    assert len(torch.unique(table.reshape(4, 16, 2)[:, 0, 0])) == 4  # and the first level is the far corner
    assert codes.table[0].tolist() == [0, 0, 0]
    assert codes.report["relative_residual"] < 0.01


@pytest.mark.parametrize("normalised", [False, True])
def test_the_relative_residual_is_that_of_the_vectors(tmp_path: Path, normalised: bool) -> None:
    data = world(tmp_path, clusters())
    codes = made_with(RQKMeans, sizes=[4, 4], collision="extra_level", normalise_residuals=normalised).fit(data)
    left = EmbeddingVectors(data.catalogue).rows(np.arange(1, 65))
    apart = ((left - left.mean(axis=0)) ** 2).sum()
    scales = np.ones((64, 1))
    for level in range(2):  # k-means has converged: a centre is the mean of what it holds
        if level and normalised:
            scales = np.linalg.norm(left, axis=1, keepdims=True)
            left = left / scales
        code = codes.table[1:, level].numpy()
        left = left - np.stack([left[code == number].mean(axis=0) for number in range(4)])[code]
    assert codes.report["relative_residual"] == pytest.approx(((left * scales) ** 2).sum() / apart, rel=1e-3)
    assert codes.report["relative_residual_as_placed"] == codes.report["relative_residual"]


def test_extra_level_numbers_items_inside_a_shared_code(tmp_path: Path) -> None:
    codes = made_with(RQKMeans, sizes=[4, 4], collision="extra_level").fit(world(tmp_path, clusters()))
    assert codes.sizes == (4, 4, 4)
    assert codes.table[1:, 2].reshape(16, 4).tolist() == [[0, 1, 2, 3]] * 16
    assert codes.report["colliding_items"] == 0


def test_next_nearest_keeps_first_levels_and_shares_nothing(tmp_path: Path) -> None:
    data = world(tmp_path, clusters())
    shared = made_with(RQKMeans, sizes=[4, 32], collision="none").fit(data)
    codes = made_with(RQKMeans, sizes=[4, 32], collision="next_nearest").fit(data)
    assert codes.sizes == (4, 32)
    assert set(shares(codes.table)) == {1}
    assert (codes.table[:, 0] == shared.table[:, 0]).all()
    alone = torch.tensor([0, *shares(shared.table)]) == 1
    assert (codes.table[alone] == shared.table[alone]).all()
    moved = int((codes.table != shared.table).any(dim=1).sum())
    assert (codes.report["moved_items"], codes.report["spilled_items"]) == (moved, 0)
    assert moved == 64 - shared.report["distinct_codes"]  # of each shared code, one item stays
    assert codes.report["relative_residual_as_placed"] > codes.report["relative_residual"]


def test_full_prefixes_spill_and_every_code_can_be_used(tmp_path: Path) -> None:
    vectors = clusters()
    vectors[:16] = vectors[16]  # the second corner now holds twice the 16 items that its prefix can
    codes = made_with(RQKMeans, sizes=[4, 4, 4], collision="next_nearest").fit(world(tmp_path, vectors))
    assert set(shares(codes.table)) == {1}
    assert codes.report["distinct_codes"] == 64  # of 64: the world is exactly full
    assert codes.report["spilled_items"] > 0


@pytest.mark.parametrize("collision", ["none", "extra_level", "next_nearest"])
def test_items_without_a_vector_get_first_codes_of_their_own(tmp_path: Path, collision: Any) -> None:
    vectors = clusters()
    vectors[[1, 9, 20, *range(40, 60)]] = np.nan
    codes = made_with(RQKMeans, sizes=[4, 4, 4], collision=collision).fit(world(tmp_path, vectors))
    lacking = torch.from_numpy(np.append(False, np.isnan(vectors).any(axis=1)))
    first = codes.table[:, 0]
    assert (first[lacking] >= 4).all()
    assert (first[~lacking] < 4).all()
    # 23 items are numbered by 16 codes a first code, so they take two; sharing ones need only one.
    assert codes.sizes[:3] == ((5, 4, 4) if collision == "none" else (6, 4, 4))
    assert codes.report["items_without_vector"] == 23
    if collision == "none":
        assert len(torch.unique(codes.table[lacking], dim=0)) == 1
    else:
        assert set(shares(codes.table)) == {1}


def test_items_without_a_vector_take_the_mean_of_their_neighbours(tmp_path: Path) -> None:
    vectors = clusters()
    vectors[1] = np.nan  # item 2 stands between 1 and 17 and, elsewhere, beside 18; the last two events are held out
    vectors[40] = np.nan  # item 41 never occurs
    histories = [[(item, 1, time) for time, item in enumerate(row)] for row in ([1, 2, 17, 3, 4], [18, 2, 3, 4])]
    data = world(tmp_path, vectors, histories)
    source = EmbeddingVectors(data.catalogue)
    items, means = neighbour_means(data, source)
    assert items.tolist() == [2]
    np.testing.assert_allclose(means[0], source.rows(np.array([1, 17, 18])).mean(axis=0), rtol=1e-5)
    codes = made_with(RQKMeans, sizes=[4, 4, 4], missing="neighbours", collision="none").fit(data)
    assert codes.report["items_without_vector"] == 2
    assert codes.report["items_with_vector_of_neighbours"] == 1
    assert codes.table[2, 0] < 4
    assert codes.table[41, 0] == 4


def test_embeddings_are_scaled_alike_and_put_side_by_side(tmp_path: Path) -> None:
    both = {"81": np.array([[3.0, 4.0], [0, 2], [1, 0]]), "82": np.array([[5.0], [np.nan], [np.nan]])}
    data = world(tmp_path, both, [[(1, 1, 1), (2, 1, 2), (3, 1, 3)]])
    vectors = EmbeddingVectors(data.catalogue, [81, "82"])
    assert vectors.present.tolist() == [False, True, True, True]
    np.testing.assert_allclose(vectors.rows(np.array([1, 2])), [[0.6, 0.8, 1], [0, 1, 0]], atol=1e-3)
    assert vectors.name == "embeddings 81, 82"


def test_svd_keeps_the_strongest_directions(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    flat = random.normal(size=(50, 2)) @ random.normal(size=(2, 6))  # a plane in six dimensions
    data = world(tmp_path, flat)
    source = EmbeddingVectors(data.catalogue)
    items = np.arange(1, 51)
    reduced = project_svd(source, 2, seed=0).rows(items)
    np.testing.assert_allclose(reduced @ reduced.T, source.rows(items) @ source.rows(items).T, atol=1e-3)
    assert made_with(RQKMeans, svd=2, sizes=[8, 8]).fit(data).report["vector_width"] == 2
    with pytest.raises(SuiteError, match=r"tokenizer\.svd: 7 is more than the 6 dimensions"):
        made_with(RQKMeans, svd=7, sizes=[8, 8]).fit(data)


def test_vectors_can_come_from_a_file_and_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = world(tmp_path, clusters())
    values = np.vstack([np.zeros((1, 8), np.float32), clusters()]).astype(np.float16)
    np.save(tmp_path / "vectors.npy", values)
    options = {"sizes": [4, 32], "normalise_residuals": True}
    whole = made_with(RQKMeans, **options).fit(data)
    monkeypatch.setattr("grbench_reference.codes.item_vectors.BLOCK_BYTES", 8 * 4 * 5)
    filed = made_with(RQKMeans, source="file", vectors=str(tmp_path / "vectors.npy"), **options).fit(data)
    assert (filed.table == whole.table).all()
    np.save(tmp_path / "vectors.npy", values[1:])
    with pytest.raises(DataError, match=r"holds float16 \[64, 8\]; it should hold floats \[65, width\]"):
        made_with(RQKMeans, source="file", vectors=str(tmp_path / "vectors.npy")).fit(data)
    with pytest.raises(DataError, match=r"absent\.npy: is not a readable \.npy file"):
        made_with(RQKMeans, source="file", vectors="absent.npy").fit(data)
    with pytest.raises(SuiteError, match=r"tokenizer\.vectors: name an \.npy file where source is file"):
        made_with(RQKMeans, source="file")


def test_pairs_are_counted_within_the_window_of_training_events(tmp_path: Path) -> None:
    histories = [[(item, 1, time) for time, item in enumerate(row)] for row in ([1, 2, 3, 1, 5, 4], [2, 2, 1, 5, 5])]
    counts = count_pairs(world(tmp_path, np.eye(5), histories), window=2).toarray()  # 1 2 3 1 and 2 2 1 are seen
    # distance 1: 12 23 31, 21; distance 2: 13 21 (1 2 3 1), 21 (2 . 1)
    assert counts[1, 2] == counts[2, 1] == 4
    assert counts[1, 3] == 2
    assert counts[2, 3] == 1
    assert counts.sum() == 14


def test_cooccurrence_brings_items_of_the_same_histories_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    histories = [
        [(int(item), 1, time) for time, item in enumerate(random.permutation(10) + 1 + 10 * (user % 2))]
        for user in range(40)
    ]
    store = tiny_store(tmp_path, histories, num_items=21)
    data = LeaveLastOut().split(store).training
    vectors = cooccurrence_vectors(data, width=4, window=5, seed=0)
    assert not vectors.present[[0, 21]].any()
    rows = vectors.rows(np.arange(1, 21))
    products = rows @ rows.T
    assert products[:10, :10].min() > products[:10, 10:].max()
    codes = made_with(RQKMeans, source="cooccurrence", width=4, sizes=[2, 16]).fit(data)
    assert len({*codes.table[1:11, 0].tolist()}) == 1 != len({*codes.table[1:21, 0].tolist()})
    assert codes.table[21, 0] == 2
    with pytest.raises(SuiteError, match=r"tokenizer\.width: 20 dimensions, but only 20 items occur"):
        made_with(RQKMeans, source="cooccurrence", width=20).fit(data)


def test_random_k_names_the_nearest_codes_and_draws_among_them(tmp_path: Path) -> None:
    vectors = clusters()
    vectors[5] = np.nan
    codes = made_with(RQKMeans, sizes=[4, 4], collision="extra_level", random_k=2).fit(world(tmp_path, vectors))
    neighbours = neighbours_of(codes)
    first, second, extra = neighbours
    assert [table.shape[1] for table in neighbours] == [2, 2, 2]
    assert (first[:4, 0] == torch.arange(4)).all()
    assert (first[:4, 1] != torch.arange(4)).all()
    assert first[4].tolist() == [4, 4]  # the item without a vector
    assert (extra == torch.arange(len(extra))[:, None]).all()
    items = codes.table[1:].repeat(100, 1)
    drawn = draw(items, neighbours, torch.Generator().manual_seed(0))
    assert (drawn[:, 2] == items[:, 2]).all()
    learnt = items[:, 0] < 4
    assert (drawn[learnt, 0] != items[learnt, 0]).float().mean() == pytest.approx(0.5, abs=0.02)
    assert torch.isin(drawn[:, 1], second).all()
    assert draw(items, ()) is items


def test_the_same_seed_gives_the_same_codes_and_reports_are_json(tmp_path: Path) -> None:
    data = world(tmp_path, clusters())
    codes, again = (made_with(RQKMeans, sizes=[4, 32], seed=3).fit(data) for _ in range(2))
    assert (codes.table == again.table).all()
    report = json.loads(json.dumps(codes.report, allow_nan=False))
    assert {"relative_residual", "seconds", "utilisation", "fan_out", "popularity", "embedding_agreement"} <= {*report}


def test_sizes_that_cannot_give_each_item_a_code_are_refused_before_any_clustering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = world(tmp_path, clusters())
    monkeypatch.setattr(faiss, "Kmeans", None)
    for made in (RQKMeans.fit, RQKMeans.stand_in):
        with pytest.raises(SuiteError, match=r"7 x 9 makes 63 codes, and collision: next_nearest .* the 64 items"):
            made(made_with(RQKMeans, sizes=[7, 9], collision="next_nearest"), data)
    with pytest.raises(SuiteError, match="a level of 65 codes cannot be learnt from the 64 items"):
        made_with(RQKMeans, sizes=[65, 2], collision="none").fit(data)


def test_where_items_may_share_codes_there_may_be_fewer_codes_than_items(tmp_path: Path) -> None:
    """Eight codes for 64 items, all of which a beam over all of them finds, in the order of exhaustive scoring."""
    data = world(tmp_path, clusters())
    tokenizer = made_with(RQKMeans, sizes=[4, 2], collision="none")
    codes = tokenizer.fit(data)
    assert tokenizer.stand_in(data).sizes == codes.sizes == (4, 2)
    assert (codes.table[1:].amax(0) < torch.tensor([4, 2])).all()
    assert codes.report["colliding_items"] == 64
    torch.manual_seed(0)
    decoder = made_with(SIDDecoder, data, codes, width=8, history_length=4).eval()
    batch = batch_of([1, 2, 3], [5])
    beam = Beam(width=8)
    beam.index(decoder, torch.arange(1, 65), codes)
    found = beam.search(decoder, batch, 64)
    assert [sorted(row) for row in found.items.tolist()] == [[*range(1, 65)]] * 2
    assert len({*codes.table[found.items[0, :2]].flatten().tolist()}) <= 4
    for row in range(2):  # items of one code have one score
        by_code = {}
        for item, value in zip(found.items[row].tolist(), found.scores[row].tolist(), strict=True):
            by_code.setdefault(tuple(codes.table[item].tolist()), set()).add(value)
        assert all(len(values) == 1 for values in by_code.values())


def test_not_a_number_in_an_embedding_names_it_and_the_item(tmp_path: Path) -> None:
    data = world(tmp_path, clusters())
    values = np.array(data.catalogue.embeddings["81"].values)
    values[7, 3] = np.nan
    broken = {"81": Embedding(values, data.catalogue.embeddings["81"].present)}
    data.catalogue = dataclasses.replace(data.catalogue, embeddings=broken)
    with pytest.raises(DataError, match=r"embeddings 81: 1 of the first 64 .* first is that of item 20000000007"):
        made_with(RQKMeans, sizes=[8, 8]).fit(data)


def test_options_are_checked(tmp_path: Path) -> None:
    data = world(tmp_path, clusters())
    with pytest.raises(SuiteError, match=r"tokenizer\.embeddings: no embedding '82' in this dataset; it has 81"):
        made_with(RQKMeans, embeddings=[82]).fit(data)
    with pytest.raises(SuiteError, match=r"random_k: 5 is more than the 4 codes"):
        made_with(RQKMeans, sizes=[16, 4], random_k=5)
    assert bind(RQKMeans, {"embeddings": [81], "svd": None}, "x")["sizes"] == [256, 256, 256]
    with pytest.raises(SuiteError, match=r"tokenizer\.sizes"):
        bind(RQKMeans, {"sizes": []}, "tokenizer")
    with pytest.raises(SuiteError, match=r"tokenizer\.sizes"):
        bind(RQKMeans, {"sizes": [256, 0]}, "tokenizer")


@needs_sample
def test_real_embedding_81_leaves_three_per_cent(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(SAMPLE / "mm_emb" / "emb_81_32_parquet")
    vectors = np.array(table["emb"].drop_null().to_pylist(), np.float32)
    report = made_with(RQKMeans, collision="none", iterations=10).fit(world(tmp_path, vectors)).report
    assert report["relative_residual"] < 0.033  # 25 iterations leave .0313
    assert report["colliding_share"] == pytest.approx(0.73, abs=0.02)
