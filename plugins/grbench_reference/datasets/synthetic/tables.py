"""The synthetic release as arrow tables with the columns of the public release, and their parquet files.

Letters: B users of a block, E events of a block, n ads, P candidates.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from grbench_reference.datasets.synthetic.ads import AdCatalogue, hash_uniform, random_stream
from grbench_reference.datasets.synthetic.schema import (
    AD_FEATURES,
    EMBEDDING_COVERAGE,
    EMBEDDING_NULLS,
    EMBEDDING_WIDTH,
    USER_FEATURES,
    pool_size,
)
from grbench_reference.datasets.synthetic.users import Population, UserBlock

EVENT = pa.struct([("item_id", pa.int64()), ("action_type", pa.int64()), ("timestamp", pa.int64())])
SEQUENCES = pa.schema([("user_id", pa.int64()), ("seq", pa.list_(EVENT))])
USERS = pa.schema(
    [("user_id", pa.int64())]
    + [(feature.name, pa.int64() if feature.width == 1 else pa.list_(pa.int64())) for feature in USER_FEATURES]
)
ADS = pa.schema([("item_id", pa.int64())] + [(feature.name, pa.int64()) for feature in AD_FEATURES])
EMBEDDINGS = pa.schema([("anonymous_cid", pa.string()), ("emb", pa.list_(pa.float32()))])
CELL = pa.struct([("cold_start", pa.int64()), ("feature_value", pa.string())])
CANDIDATES = pa.schema(
    [("item_id", pa.int64()), ("retrieval_id", pa.int64())] + [(feature.name, CELL) for feature in AD_FEATURES]
)


class PartWriter:
    """Writes one table, given in pieces, as several parquet files with the same number of rows."""

    def __init__(self, folder: Path, schema: pa.Schema, rows: int, *, max_parts: int = 10) -> None:
        """rows: of the whole table. There is one file for 50,000 rows, but at least 2 files and at most `max_parts`."""
        folder.mkdir(parents=True)
        self.folder, self.schema = folder, schema
        self.rows_per_part = -(-rows // min(max_parts, max(2, rows // 50_000)))
        self.written = 0
        self.file: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the current file."""
        if self.file is not None:
            self.file.close()

    def write(self, table: pa.Table) -> None:
        """Appends `table`, starting a new file where one is full."""
        while len(table):
            part, filled = divmod(self.written, self.rows_per_part)
            if self.file is None or filled == 0:
                self.close()
                path = self.folder / f"part-{part:05d}.parquet"
                # Ids rarely repeat within a row group, so dictionary encoding would not save space.
                self.file = pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=False)
            piece = table.slice(0, self.rows_per_part - filled)
            self.file.write_table(piece)
            self.written += len(piece)
            table = table.slice(len(piece))


def _offsets(lengths: NDArray[np.integer]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def sequences(block: UserBlock, catalogue: AdCatalogue) -> pa.Table:
    """[B] rows of seq/."""
    events = pa.StructArray.from_arrays(
        [
            pa.array(catalogue.item_ids[block.ads].astype(np.int64)),
            pa.array(block.actions.astype(np.int64), mask=block.actions < 0),
            pa.array(block.times),
        ],
        fields=list(EVENT),
    )
    users = pa.array(block.first + 1 + np.arange(len(block.lengths)))
    return pa.Table.from_arrays([users, pa.ListArray.from_arrays(_offsets(block.lengths), events)], schema=SEQUENCES)


def users(block: UserBlock, population: Population) -> pa.Table:
    """[B] rows of user_feat/: values that depend on the users' interests, with the feature's noise."""
    numbers = block.first + np.arange(len(block.lengths))
    release, seed, clusters = population.release, population.seed, population.catalogue.num_clusters
    any_feature = max(feature.coverage[release.number] for feature in USER_FEATURES)
    columns = [pa.array(numbers + 1)]
    for feature in USER_FEATURES:
        purpose, size = int(feature.name), feature.values[release.number]
        random = random_stream(seed, 6, purpose, block.first)
        # Some users have no features at all; the remaining missing values are drawn among the other users.
        has = hash_uniform(numbers, seed, 20) < any_feature
        has &= random.random(len(numbers)) < feature.coverage[release.number] / any_feature
        order = random_stream(seed, 7, purpose).permutation(size) + 1
        values = order[block.interests[:, : feature.width].astype(np.int64) * size // clusters]
        stray = random.random(values.shape) < feature.noise
        values = np.where(stray, random.integers(1, size + 1, values.shape), values)
        if feature.width == 1:
            columns.append(pa.array(values[:, 0], mask=~has))
            continue
        values = np.sort(values, axis=1)
        kept = np.concatenate([np.ones((len(values), 1), bool), values[:, 1:] != values[:, :-1]], axis=1) & has[:, None]
        flat = pa.array(values[kept])
        columns.append(pa.ListArray.from_arrays(_offsets(kept.sum(axis=1)), flat, mask=pa.array(~has)))
    return pa.Table.from_arrays(columns, schema=USERS)


def ads(numbers: NDArray[np.integer], catalogue: AdCatalogue) -> pa.Table:
    """[n] rows of item_feat/."""
    found = catalogue.ads(numbers)
    columns = [pa.array(catalogue.item_ids[numbers].astype(np.int64))]
    for feature in AD_FEATURES:
        values, has = catalogue.feature(found, feature)
        columns.append(pa.array(values, mask=~has))
    return pa.Table.from_arrays(columns, schema=ADS)


def embeddings(numbers: NDArray[np.integer], catalogue: AdCatalogue) -> pa.Table:
    """Rows of mm_emb/emb_81_32_parquet/ of those ads `numbers` [n] that have one; a few vectors are null."""
    numbers = numbers[hash_uniform(numbers, catalogue.seed, 21) < EMBEDDING_COVERAGE]
    null = hash_uniform(numbers, catalogue.seed, 22) < EMBEDDING_NULLS
    vectors = catalogue.embeddings(catalogue.ads(numbers[~null])).ravel()
    lengths = np.where(null, 0, EMBEDDING_WIDTH)
    lists = pa.ListArray.from_arrays(_offsets(lengths), pa.array(vectors), mask=pa.array(null))
    names = pc.cast(pa.array(catalogue.creative_ids[numbers]), pa.string())
    return pa.Table.from_arrays([names, lists], schema=EMBEDDINGS)


def raw_values(feature: str, values: NDArray[np.integer]) -> NDArray[np.int64]:
    """The raw values that `indexer.pkl` maps to the value ids `values`: of feature 121, 1,210,000,000 + value id."""
    return int(feature) * 10_000_000 + values.astype(np.int64)


def candidates(numbers: NDArray[np.integer], first: int, catalogue: AdCatalogue) -> pa.Table:
    """[n] rows of candidate/. first: retrieval id of the first one."""
    found = catalogue.ads(numbers)
    columns = [pa.array(catalogue.creative_ids[numbers]), pa.array(first + np.arange(len(numbers)))]
    for feature in AD_FEATURES:
        values, has = catalogue.feature(found, feature)
        cold = values > catalogue.num_values[feature.name]
        text = pc.cast(pa.array(np.where(cold, raw_values(feature.name, values), values)), pa.string())
        columns.append(
            pa.StructArray.from_arrays([pa.array(cold.astype(np.int64)), text], fields=list(CELL), mask=pa.array(~has))
        )
    return pa.Table.from_arrays(columns, schema=CANDIDATES)


def write_indexer(path: Path, catalogue: AdCatalogue, population: Population) -> None:
    """Writes indexer.pkl: dictionaries from raw ids to those of the release, the only part that cannot be streamed."""
    in_order = np.argsort(catalogue.item_ids)
    ids = catalogue.creative_ids[: catalogue.num_ads][in_order]
    features: defaultdict[str, dict[int, int]] = defaultdict(dict)
    sizes = catalogue.num_values | {
        feature.name: feature.values[population.release.number] for feature in USER_FEATURES
    }
    for name, size in sizes.items():
        values = np.arange(1, size + 1)
        features[name] = dict(zip(raw_values(name, values).tolist(), values.tolist(), strict=True))
    random = random_stream(population.seed, 8)
    digits = pc.cast(pa.array(random.permutation(population.num_users)), pa.string())
    user_names = pc.binary_join_element_wise("user_", pc.utf8_lpad(digits, 8, "0"), "").to_pylist()
    indexer = {
        "f": features,
        "i": dict(zip(ids.tolist(), range(1, len(ids) + 1), strict=True)),
        "u": dict(zip(user_names, range(1, len(user_names) + 1), strict=True)),
        "a": {action: action + 1 for action in range(len(population.release.shares))},
    }
    with path.open("wb") as file:
        pickle.dump(indexer, file, protocol=4)


def choose_candidates(
    population: Population, events: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[P] ad numbers, in random order.

    They are: last positive ads of users, enough to cover `release.target_coverage` of the users; a share
    `release.cold_share` of ads without events, some of them in the indexer, most of them new; other ads with events.

    Args:
        events: [N] number of events of each ad
        targets: [N] number of users whose last positive event is on the ad
    """
    catalogue, release = population.catalogue, population.release
    size = pool_size(catalogue.num_ads, release)
    random = random_stream(catalogue.seed, 9)
    num_cold = min(round(size * release.cold_share), catalogue.num_cold)
    without_events = random.permutation(np.flatnonzero(events == 0))[: round(0.3 * num_cold)]
    new = catalogue.num_ads + np.arange(num_cold - len(without_events))
    last_positive = np.flatnonzero(targets)
    # Weighted sampling without replacement (Efraimidis and Spirakis 2006), weighted by the number of users.
    last_positive = last_positive[np.argsort(-np.log(random.random(len(last_positive))) / targets[last_positive])]
    share = np.cumsum(targets[last_positive]) / max(1, targets.sum())
    warm = size - num_cold
    chosen = last_positive[: min(warm, int(np.searchsorted(share, release.target_coverage)) + 1)]
    others = random.permutation(np.flatnonzero((events > 0) & (targets == 0)))[: warm - len(chosen)]
    return random.permutation(np.concatenate([chosen, others, without_events, new])).astype(np.int64)
