"""Generates a synthetic release in TencentGR's layout, at any size, with structure that better methods can learn.

The structure: ads in a tree of clusters that their sparse features and emb_81 reflect; users with a few drifting
interests; sessions about one cluster; ads that tend to follow other ads; long-tailed popularity; ads with a lifetime of
days; more clicks on ads of a user's interests; cold candidates. Sizes and shares are the paper's (Tables 1-3).
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grbench.errors import DataError
from grbench.temporary import beside
from grbench.types import Progress
from grbench_reference.datasets.synthetic import tables
from grbench_reference.datasets.synthetic.ads import AdCatalogue
from grbench_reference.datasets.synthetic.schema import (
    EMBEDDING,
    EMBEDDING_WIDTH,
    RELEASES,
    SyntheticRelease,
    pool_size,
)
from grbench_reference.datasets.synthetic.users import Population, UserBlock

# Incremented when the same options give different data, so that stores of the older data are not reused.
VERSION = 1
MIN_USERS, MIN_ITEMS = 10, 50
ROWS = 65_536  # ads written at once


def _silent(what: str, done: int, total: int | None) -> None:
    """A Progress that reports nothing."""


def generate(
    folder: Path,
    *,
    users: int,
    items: int,
    actions: int = 2,
    seed: int = 0,
    workers: int | None = None,
    report: Progress = _silent,
) -> None:
    """Writes a release of `users` users and `items` indexed ads to `folder`, which must be empty or not exist.

    Memory: about 100 bytes per ad, 300 MB per worker, and 180 bytes per ad and user for indexer.pkl.
    The same options give the same data, whatever the number of workers. After a failure nothing is left behind.

    Args:
        folder: the folder to write
        users: number of users, at least 10
        items: number of ads in the indexer, at least 50; cold candidates are added to them
        actions: 2 = exposure and click (TencentGR-1M), 3 = also conversion (TencentGR-10M)
        seed: at least 0
        workers: number of simulating threads; None = one per core
        report: called with (part, done, total) as the work proceeds

    Raises:
        DataError: for an impossible size, a folder that is not empty, or too little disk space
    """
    release = check_size(users, items, actions, seed)
    _check_place(folder, estimated_bytes(users, items, release))
    try:
        with beside(folder) as partial:
            partial.mkdir(parents=True)
            report("generating ads", 0, 1)
            catalogue = AdCatalogue(items, round(pool_size(items, release) * release.cold_share), release, seed)
            population = Population(catalogue, users, release, seed)
            report("generating ads", 1, 1)
            _write(partial, population, workers or _cores(), report)
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: could not be written: {error}") from error


def check_size(users: int, items: int, actions: int, seed: int) -> SyntheticRelease:
    """The release with this number of actions; raises DataError where an argument is out of range."""
    if actions not in RELEASES:
        raise DataError(f"actions: {actions}; a synthetic release has 2 (exposure, click) or 3 (and conversion)")
    for name, value, minimum in (("users", users, MIN_USERS), ("items", items, MIN_ITEMS), ("seed", seed, 0)):
        if value < minimum:
            raise DataError(f"{name}: {value}; a synthetic release needs at least {minimum}")
    return RELEASES[actions]


def _check_place(folder: Path, needed: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: already exists; name a folder that does not exist or is empty")
    free = shutil.disk_usage(next(parent for parent in folder.absolute().parents if parent.exists())).free
    if needed > free:
        raise DataError(
            f"{folder}: a release of this size takes {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there"
        )


def estimated_bytes(users: int, items: int, release: SyntheticRelease) -> int:
    """An estimate of the release's size on disk, slightly too large."""
    return int(users * (release.lengths * 7 + 40) + items * 220 + pool_size(items, release) * 220)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(folder: Path, population: Population, workers: int, report: Progress) -> None:
    catalogue, items = population.catalogue, population.catalogue.num_ads
    events, targets = _write_users(folder, population, workers, report)
    pool = tables.choose_candidates(population, events, targets)
    with tables.PartWriter(folder / "candidate", tables.CANDIDATES, len(pool), max_parts=1) as parts:
        for start in _blocks(len(pool), "candidates", report):
            parts.write(tables.candidates(pool[start : start + ROWS], start + 1, catalogue))

    by_item_id = np.argsort(catalogue.item_ids)
    with tables.PartWriter(folder / "item_feat", tables.ADS, items) as parts:
        for start in _blocks(items, "item features", report):
            parts.write(tables.ads(by_item_id[start : start + ROWS], catalogue))
    described = np.concatenate([by_item_id, np.sort(pool[pool >= items])])
    embedding_folder = folder / "mm_emb" / f"emb_{EMBEDDING}_{EMBEDDING_WIDTH}_parquet"
    with tables.PartWriter(embedding_folder, tables.EMBEDDINGS, len(described), max_parts=5) as parts:
        for start in _blocks(len(described), "embeddings", report):
            parts.write(tables.embeddings(described[start : start + ROWS], catalogue))

    report("indexer", 0, 1)
    tables.write_indexer(folder / "indexer.pkl", catalogue, population)
    (folder / "README.md").write_text(_readme(population), encoding="utf-8")
    report("indexer", 1, 1)


def _write_users(
    folder: Path, population: Population, workers: int, report: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Writes seq/ and user_feat/ -> [N] events of each ad, [N] users whose last positive event each ad is."""
    num_ads = population.catalogue.num_ads
    events, targets = np.zeros(num_ads, np.int64), np.zeros(num_ads, np.int64)
    with (
        tables.PartWriter(folder / "seq", tables.SEQUENCES, population.num_users) as sequences,
        tables.PartWriter(folder / "user_feat", tables.USERS, population.num_users) as features,
    ):
        for block in _simulated(population, workers):
            sequences.write(tables.sequences(block, population.catalogue))
            features.write(tables.users(block, population))
            events += np.bincount(block.ads, minlength=num_ads)
            np.add.at(targets, last_positives(block), 1)
            report("users", block.first + len(block.lengths), population.num_users)
    return events, targets


def _simulated(population: Population, workers: int) -> Iterator[UserBlock]:
    """The blocks of users in order, simulated by threads that are at most `workers` blocks ahead."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[UserBlock]] = deque()
        for number in range(population.num_blocks):
            pending.append(pool.submit(population.block, number))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def last_positives(block: UserBlock) -> NDArray[np.int32]:
    """The ad of the last positive event of each user that has one."""
    positive = np.flatnonzero(block.actions > 0)
    user = np.repeat(np.arange(len(block.lengths)), block.lengths)[positive]
    is_last = np.append(user[1:] != user[:-1], True) if len(user) else np.zeros(0, bool)
    ads: NDArray[np.int32] = block.ads[positive[is_last]]
    return ads


def _blocks(rows: int, what: str, report: Progress) -> Iterator[int]:
    for start in range(0, rows, ROWS):
        yield start
        report(what, min(start + ROWS, rows), rows)


def _readme(population: Population) -> str:
    return (
        "# Synthetic data in the layout of TencentGR\n\n"
        "This data is synthetic, generated by `grbench data synth`. Layout, feature ids, cardinalities, coverages and "
        "shares follow\nthe paper of the Tencent Advertising Algorithm Challenge 2025.\n\n"
        f"    grbench data synth --users {population.num_users} --items {population.catalogue.num_ads} "
        f"--actions {len(population.release.shares)} --seed {population.seed}\n\n"
        f"Generator version {VERSION}.\n"
    )
