"""The synthetic release as Arrow tables in the public release's columns, and the parquet parts that hold them.

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

from grbench_reference.datasets.synthetic.ads import AdCatalogue, hashed_uniform, stream
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


class Parts:
    """Writes one table as several parquet files of equal length, whatever the pieces it comes in."""

    def __init__(self, folder: Path, schema: pa.Schema, rows: int, *, most: int = 10) -> None:
        """`rows` = how many there will be; at least two parts where there are two rows, and `most` at the most."""
        folder.mkdir(parents=True)
        self.folder, self.schema = folder, schema
        self.rows_a_part = -(-rows // min(most, max(2, rows // 50_000)))
        self.written = 0
        self.file: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Writes the footer of the part at hand."""
        if self.file is not None:
            self.file.close()

    def write(self, table: pa.Table) -> None:
        """Appends `table`, going on to the next part where one is full."""
        while len(table):
            part, filled = divmod(self.written, self.rows_a_part)
            if self.file is None or filled == 0:
                self.close()
                path = self.folder / f"part-{part:05d}.parquet"
                # Ids hardly repeat within a row group, so a dictionary would cost time and save nothing.
                self.file = pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=False)
            piece = table.slice(0, self.rows_a_part - filled)
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
    """[B] rows of user_feat/: values that follow the interests, as far as the feature's noise lets them."""
    numbers = block.first + np.arange(len(block.lengths))
    release, seed, clusters = population.release, population.seed, population.catalogue.num_clusters
    known = max(feature.coverage[release.number] for feature in USER_FEATURES)
    columns = [pa.array(numbers + 1)]
    for feature in USER_FEATURES:
        purpose, size = int(feature.name), feature.values[release.number]
        random = stream(seed, 6, purpose, block.first)
        # Some users have no features at all, so the rest of a feature's gaps are drawn among those who do.
        has = hashed_uniform(numbers, seed, 20) < known
        has &= random.random(len(numbers)) < feature.coverage[release.number] / known
        order = stream(seed, 7, purpose).permutation(size) + 1
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
    """Rows of mm_emb/emb_81_32_parquet/ for those of `numbers` [n] that have one; a few of them hold a null."""
    numbers = numbers[hashed_uniform(numbers, catalogue.seed, 21) < EMBEDDING_COVERAGE]
    null = hashed_uniform(numbers, catalogue.seed, 22) < EMBEDDING_NULLS
    vectors = catalogue.embeddings(catalogue.ads(numbers[~null])).ravel()
    lengths = np.where(null, 0, EMBEDDING_WIDTH)
    lists = pa.ListArray.from_arrays(_offsets(lengths), pa.array(vectors), mask=pa.array(null))
    names = pc.cast(pa.array(catalogue.creative_ids[numbers]), pa.string())
    return pa.Table.from_arrays([names, lists], schema=EMBEDDINGS)


def raw_values(feature: str, values: NDArray[np.integer]) -> NDArray[np.int64]:
    """The value as the log had it before it was numbered, as `indexer.pkl` maps it: 121 -> 1,210,000,000 and on."""
    return int(feature) * 10_000_000 + values.astype(np.int64)


def candidates(numbers: NDArray[np.integer], first: int, catalogue: AdCatalogue) -> pa.Table:
    """[n] rows of candidate/; `first` = the retrieval id of the first one."""
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
    """indexer.pkl: dictionaries from the log's ids to the release's, the one part that cannot be streamed."""
    in_order = np.argsort(catalogue.item_ids)
    ids = catalogue.creative_ids[: catalogue.num_ads][in_order]
    features: defaultdict[str, dict[int, int]] = defaultdict(dict)
    sizes = catalogue.num_values | {
        feature.name: feature.values[population.release.number] for feature in USER_FEATURES
    }
    for name, size in sizes.items():
        values = np.arange(1, size + 1)
        features[name] = dict(zip(raw_values(name, values).tolist(), values.tolist(), strict=True))
    random = stream(population.seed, 8)
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

    Enough ads that were somebody's last positive to hold `release.target_coverage` of the users; `release.cold_share`
    ads without an event, some in the index and most new; the rest any that were shown.

    Args:
        events: [N] events of each ad
        targets: [N] users whose last positive event each ad is
    """
    catalogue, release = population.catalogue, population.release
    size = pool_size(catalogue.num_ads, release)
    random = stream(catalogue.seed, 9)
    num_cold = min(round(size * release.cold_share), catalogue.num_cold)
    silent = random.permutation(np.flatnonzero(events == 0))[: round(0.3 * num_cold)]
    new = catalogue.num_ads + np.arange(num_cold - len(silent))
    wanted = np.flatnonzero(targets)
    # Drawn without replacement, each with a chance that grows with its users (Efraimidis and Spirakis 2006).
    wanted = wanted[np.argsort(-np.log(random.random(len(wanted))) / targets[wanted])]
    share = np.cumsum(targets[wanted]) / max(1, targets.sum())
    warm = size - num_cold
    chosen = wanted[: min(warm, int(np.searchsorted(share, release.target_coverage)) + 1)]
    others = random.permutation(np.flatnonzero((events > 0) & (targets == 0)))[: warm - len(chosen)]
    return random.permutation(np.concatenate([chosen, others, silent, new])).astype(np.int64)
