"""The challenge's protocol: the target is the last positive event, a click or conversion, of each evaluation user."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from grbench.data.histories import Histories
from grbench.data.queries import Pool, candidate_pool, last_events, pool_mask, queries_at, require_candidates
from grbench.data.split import Queries, Split
from grbench.data.store import Store
from grbench.data.training_data import TrainingData, action_tokens
from grbench.errors import DataError
from grbench.interfaces import Dataset, EvaluationProtocol
from grbench.registry.option_types import Seed, Share

# The counts that yiyidaishui7/tencentgr-1m-2025-reproduction reports for TencentGR-1M, and what they were made with.
PUBLISHED_USERS, PUBLISHED_CANDIDATES = 1_001_845, 660_000
PUBLISHED_SETTINGS: dict[str, object] = {
    "positives": ["click"],
    "evaluation_share": 0.1,
    "seed": 2025,
    "pool": "candidates",
    "out_of_pool": "drop",
}
PUBLISHED_COUNTS = {
    "evaluation_users": 100_184,
    "dropped_no_positive": 100_184 - 98_439,
    "dropped_out_of_pool": 19_518,
    "evaluated": 78_921,
}


def ascending(user_ids: np.ndarray) -> np.ndarray:
    """user_ids [U], int64 or StringDType -> [U] int64, the rows in ascending order of their ids: text by value where
    all ids are digits only, however many, else as text."""
    ids = np.asarray(user_ids)
    if ids.dtype.kind == "i" or not np.strings.isdecimal(ids).all():
        return np.argsort(ids, kind="stable")
    digits = np.strings.lstrip(ids, "0")
    order = np.argsort(digits, kind="stable")  # numpy 2.0's lexsort crashes on this type
    # Of two numbers, the one with more digits is larger.
    return order[np.argsort(np.strings.str_len(digits)[order], kind="stable")]


class LastPositive(EvaluationProtocol):
    """Holds out each evaluation user's last positive event.

    The history is the events before it in the stored order. The split into training and evaluation users is that of
    `torch.utils.data.random_split` with the given seed over the users in ascending order of their ids, as in the only
    published offline results (yiyidaishui7/tencentgr-1m-2025-reproduction), whatever the order of the dataset's files.
    Ids that are text are ordered by value where all are digits only, else as text.

    Args:
        positives: actions that count as positive
        evaluation_share: share of the users that are evaluated
        validation_share: share of the users that are held out for validation in the same way
        seed: seed of the user split; the same for all cells, whatever the cell's own seed
        pool: candidates = the dataset's official candidates are ranked; catalogue = all items
        out_of_pool: drop = users whose target is not in the pool are dropped; add = their targets join the pool
        targets: every = every next event is a training target; positives = only those of the positive actions
        train_on_evaluation_history: also train on the evaluation users' events before their target
        exposures_until: unix seconds; later events of the action `exposure` are not training targets
        next_action: the action that models are conditioned on at test; the first of `positives` where not given
    """

    def __init__(
        self,
        *,
        positives: Annotated[list[str], Field(min_length=1)] = ["click"],  # noqa: B006 - never modified
        evaluation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        validation_share: Share = 0.0,
        seed: Seed = 2025,
        pool: Pool = "candidates",
        out_of_pool: Literal["drop", "add"] = "drop",
        targets: Literal["every", "positives"] = "every",
        train_on_evaluation_history: bool = False,
        exposures_until: int | None = None,
        next_action: str | None = None,
    ) -> None:
        self.positives, self.next_action = positives, next_action
        self.evaluation_share, self.validation_share, self.seed = evaluation_share, validation_share, seed
        self.pool, self.out_of_pool = pool, out_of_pool
        self.targets, self.exposures_until = targets, exposures_until
        self.train_on_evaluation_history = train_on_evaluation_history

    @property
    def settings(self) -> dict[str, object]:
        """The options that decide who is evaluated."""
        return {
            "positives": sorted(self.positives),
            "evaluation_share": self.evaluation_share,
            "seed": self.seed,
            "pool": self.pool,
            "out_of_pool": self.out_of_pool,
        }

    def check(self, dataset: Dataset) -> None:
        """Raises DataError where the pool is the dataset's candidates and it has none."""
        require_candidates(dataset, self.pool)

    def adds_targets_to_pool(self) -> bool:
        """With `out_of_pool: add`."""
        return self.out_of_pool == "add"

    def split(self, store: Store) -> Split:
        """Raises DataError where an action is unknown, the pool is missing, or no user is left."""
        tokens = action_tokens(self.positives, store.catalogue, "protocol.positives")
        next_action = action_tokens([self.next_action or self.positives[0]], store.catalogue, "protocol.next_action")[0]
        no_target_after = None
        if self.exposures_until is not None:
            no_target_after = (
                action_tokens(["exposure"], store.catalogue, "protocol.exposures_until")[0],
                self.exposures_until,
            )
        pool = candidate_pool(store, self.pool)
        training, validation, test = self._divide_users(ascending(store.catalogue.user_ids))
        counts: dict[str, int] = {"evaluation_users": len(test)}

        test_at = last_events(store, test, tokens)
        validation_at = last_events(store, validation, tokens)
        has_target = test_at >= 0
        counts["dropped_no_positive"] = int((~has_target).sum())
        if self.out_of_pool == "add":
            pool = np.union1d(pool, store.items[test_at[has_target]]).astype(np.int64)
        queries = self._queries(store, test[has_target], test_at[has_target], next_action, pool)
        counts["dropped_out_of_pool"] = int(has_target.sum()) - len(queries)
        counts["evaluated"] = len(queries)
        counts["evaluated_without_history"] = int((queries.histories.lengths == 0).sum())
        if not len(queries):
            raise DataError(
                f"the protocol leaves no user to evaluate: of {len(test)} evaluation users "
                f"{counts['dropped_no_positive']} have no {' or '.join(self.positives)} event and "
                f"{counts['dropped_out_of_pool']} a target outside the pool"
            )
        has_validation_target = validation_at >= 0
        validation_queries = self._queries(
            store, validation[has_validation_target], validation_at[has_validation_target], next_action, pool
        )
        return Split(
            training=TrainingData(
                store.catalogue,
                self._training_histories(store, training, test, test_at),
                target_actions=tokens if self.targets == "positives" else None,
                no_target_after=no_target_after,
            ),
            validation=validation_queries if len(validation_queries) else None,
            test=queries,
            candidates=pool,
            counts=counts,
            remarks=self._remarks(store, counts),
        )

    def _remarks(self, store: Store, counts: dict[str, int]) -> tuple[str, ...]:
        """That counts differ from the published ones, where data and settings are those that were published."""
        candidates = 0 if store.candidates is None else len(store.candidates)
        published = self.settings == PUBLISHED_SETTINGS
        if not published or (store.catalogue.num_users, candidates) != (PUBLISHED_USERS, PUBLISHED_CANDIDATES):
            return ()
        differing = [
            f"{name.replace('_', ' ')} {counts[name]:,} (published: {count:,})"
            for name, count in PUBLISHED_COUNTS.items()
            if counts[name] != count
        ]
        if not differing:
            return ()
        return (f"counts differ from yiyidaishui7/tencentgr-1m-2025-reproduction: {', '.join(differing)}",)

    def _divide_users(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """users: [U] all rows, in the order of the users' ids -> training, validation and test rows, each ascending.
        Raises DataError where none train or none are tested."""
        import torch

        num_users = len(users)
        order = users[torch.randperm(num_users, generator=torch.Generator().manual_seed(self.seed)).numpy()]
        evaluated = int(num_users * self.evaluation_share)
        validated = int(num_users * self.validation_share)
        training = num_users - evaluated - validated
        if training <= 0 or evaluated == 0:
            raise DataError(
                f"the protocol leaves {max(training, 0)} users to train on and {evaluated} to evaluate of {num_users}; "
                "change protocol.evaluation_share or validation_share"
            )
        test, validation = order[num_users - evaluated :], order[training : num_users - evaluated]
        return np.sort(order[:training]), np.sort(validation), np.sort(test)

    def _queries(self, store: Store, users: np.ndarray, at: np.ndarray, next_action: int, pool: np.ndarray) -> Queries:
        """The queries of users whose target event `at` is on an item of the pool."""
        inside = pool_mask(store, pool)[store.items[at]]
        return queries_at(store, users[inside], at[inside], next_action)

    def _training_histories(
        self, store: Store, training: np.ndarray, test: np.ndarray, test_at: np.ndarray
    ) -> Histories:
        starts, stops = store.offsets[training], store.offsets[training + 1]
        if self.train_on_evaluation_history:
            evaluated = test[test_at >= 0]
            users = np.concatenate([training, evaluated])
            order = np.argsort(users)
            starts = np.concatenate([starts, store.offsets[evaluated]])[order]
            stops = np.concatenate([stops, test_at[test_at >= 0]])[order]
            training = users[order]
        return Histories(store, training, np.asarray(starts), np.asarray(stops))
