"""A synthetic release read back with nothing but pyarrow and pickle."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class World:
    """A release read back. Events lie user after user; offsets [U+1]."""

    folder: Path
    offsets: np.ndarray
    items: np.ndarray
    actions: np.ndarray
    times: np.ndarray
    ads: pa.Table
    users: pa.Table
    candidates: pa.Table
    embeddings: pa.Table
    indexer: dict

    @property
    def last_positives(self) -> np.ndarray:
        """[U] position of each user's last positive event, -1 where there is none."""
        last = np.full(len(self.offsets) - 1, -1)
        positive = np.flatnonzero(self.actions > 0)
        last[np.searchsorted(self.offsets, positive, side="right") - 1] = positive
        return last

    @property
    def pool(self) -> np.ndarray:
        """[P] RIDs of the candidates, 0 for those that the indexer does not know."""
        return np.array([self.indexer["i"].get(oid, 0) for oid in self.candidates["item_id"].to_pylist()])


def read(folder: Path) -> World:
    def table(name: str) -> pa.Table:
        return pa.concat_tables(pq.read_table(path) for path in sorted((folder / name).iterdir())).combine_chunks()

    seq = table("seq")["seq"].combine_chunks()
    actions = seq.flatten().field("action_type").fill_null(-1)
    return World(
        folder=folder,
        offsets=seq.offsets.to_numpy(),
        items=seq.flatten().field("item_id").to_numpy(),
        actions=actions.to_numpy(),
        times=seq.flatten().field("timestamp").to_numpy(),
        ads=table("item_feat"),
        users=table("user_feat"),
        candidates=table("candidate"),
        embeddings=table("mm_emb/emb_81_32_parquet"),
        indexer=pickle.loads((folder / "indexer.pkl").read_bytes()),
    )
