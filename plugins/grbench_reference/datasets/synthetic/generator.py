"""Writes a synthetic release in TencentGR's public layout, at any size, with structure that a better method finds.

What is planted: ads in a tree of clusters that shows in their sparse features and in emb_81; users with a few
interests, that drift; sessions about one cluster; ads that follow each other; popularity with a long tail; ads that
live for days; clicks where an ad meets an interest; cold candidates. Sizes and shares are the paper's (Tables 1-3).
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

# Raised whenever the same options give other data; stores made from the older data are then not reused.
VERSION = 1
FEWEST_USERS, FEWEST_ITEMS = 10, 50
ROWS = 65_536  # ads written at once


def _silent(what: str, done: int, total: int | None) -> None:
    """Reports to nobody."""


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
    """Writes a release of `users` users and `items` indexed ads to `folder`, which must not exist or be empty.

    Memory: about 100 bytes an ad and 300 MB a worker, and once more for indexer.pkl's dictionaries (180 bytes an ad or
    user). The same options give the same data, whatever the number of workers. Nothing is left behind when it fails.

    Args:
        folder: where the release goes
        users: how many, at least 10
        items: how many ads the index knows, at least 50; cold candidates come on top
        actions: 2 = exposure and click (TencentGR-1M), 3 = and conversion (TencentGR-10M)
        seed: any number from 0
        workers: threads that simulate; None = one a core. The threads' number never changes the data
        report: told (what, done, total) as it goes on

    Raises:
        DataError: an impossible size, a folder that holds something, or a disk without room
    """
    release = check_size(users, items, actions, seed)
    _check_place(folder, estimated_bytes(users, items, release))
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        report("planting ads", 0, 1)
        catalogue = AdCatalogue(items, round(pool_size(items, release) * release.cold_share), release, seed)
        population = Population(catalogue, users, release, seed)
        report("planting ads", 1, 1)
        _write(partial, population, workers or _cores(), report)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_size(users: int, items: int, actions: int, seed: int) -> SyntheticRelease:
    """The release that the numbers ask for; raises DataError where there can be none."""
    if actions not in RELEASES:
        raise DataError(f"actions: {actions}; a synthetic release has 2 (exposure, click) or 3 (and conversion)")
    for name, value, least in (("users", users, FEWEST_USERS), ("items", items, FEWEST_ITEMS), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"{name}: {value}; a synthetic release needs at least {least}")
    return RELEASES[actions]


def _check_place(folder: Path, needed: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already; name a folder that does not exist or is empty")
    free = shutil.disk_usage(next(parent for parent in folder.absolute().parents if parent.exists())).free
    if needed > free:
        raise DataError(
            f"{folder}: a release of this size takes {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there"
        )


def estimated_bytes(users: int, items: int, release: SyntheticRelease) -> int:
    """About how much disk a release takes, rounded up a little."""
    return int(users * (release.lengths * 7 + 40) + items * 220 + pool_size(items, release) * 220)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(folder: Path, population: Population, workers: int, report: Progress) -> None:
    catalogue, items = population.catalogue, population.catalogue.num_ads
    events, targets = _write_users(folder, population, workers, report)
    pool = tables.choose_candidates(population, events, targets)
    with tables.Parts(folder / "candidate", tables.CANDIDATES, len(pool), most=1) as parts:
        for start in _blocks(len(pool), "candidates", report):
            parts.write(tables.candidates(pool[start : start + ROWS], start + 1, catalogue))

    by_item_id = np.argsort(catalogue.item_ids)
    with tables.Parts(folder / "item_feat", tables.ADS, items) as parts:
        for start in _blocks(items, "item features", report):
            parts.write(tables.ads(by_item_id[start : start + ROWS], catalogue))
    described = np.concatenate([by_item_id, np.sort(pool[pool >= items])])
    embedding_folder = folder / "mm_emb" / f"emb_{EMBEDDING}_{EMBEDDING_WIDTH}_parquet"
    with tables.Parts(embedding_folder, tables.EMBEDDINGS, len(described), most=5) as parts:
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
        tables.Parts(folder / "seq", tables.SEQUENCES, population.num_users) as sequences,
        tables.Parts(folder / "user_feat", tables.USERS, population.num_users) as features,
    ):
        for block in _simulated(population, workers):
            sequences.write(tables.sequences(block, population.catalogue))
            features.write(tables.users(block, population))
            events += np.bincount(block.ads, minlength=num_ads)
            np.add.at(targets, last_positives(block), 1)
            report("users", block.first + len(block.lengths), population.num_users)
    return events, targets


def _simulated(population: Population, workers: int) -> Iterator[UserBlock]:
    """The blocks in order, a few of them ahead in threads, which is all that memory has to hold."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[UserBlock]] = deque()
        for number in range(population.num_blocks):
            ahead.append(pool.submit(population.block, number))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def last_positives(block: UserBlock) -> NDArray[np.int32]:
    """The ad of each user's last positive event, for the users that have one."""
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
        "No line of this is real: `grbench data synth` made it up. Layout, feature ids, cardinalities, coverages and "
        "shares follow\nthe paper of the Tencent Advertising Algorithm Challenge 2025.\n\n"
        f"    grbench data synth --users {population.num_users} --items {population.catalogue.num_ads} "
        f"--actions {len(population.release.shares)} --seed {population.seed}\n\n"
        f"Generator version {VERSION}.\n"
    )
