"""The users of a synthetic release: interests that drift from session to session, and what they do with the ads.

A block of users is simulated at once, position by position: every array is [B] or [T, B] (B users, T = 100 events).
What a better method can learn, in the order in which it helps: which ads are alive and popular now; which clusters a
user cares for, and which one the session is about; which cluster an interest turns into; which ad follows which.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grbench_reference.datasets.synthetic.ads import DAYS, NUM_SUCCESSORS, SLOT, AdCatalogue, stream
from grbench_reference.datasets.synthetic.schema import MAX_LENGTH, NULL_ACTIONS, SyntheticRelease

BLOCK = 8192  # users simulated at once; one random stream each, so that threads never change the outcome
END = 1_748_880_000  # unix seconds at which every release ends, three days after the first quiet day of 10M
START = END - int(DAYS * 86_400)

INTERESTS = 4
INTEREST_SHARES = np.array([0.45, 0.75, 0.90, 1.0], dtype=np.float32)  # running shares of a user's interests
SESSION_START = 0.18  # chance that an event opens a session; sessions last 5.6 events
STAY, FOLLOW = 0.70, 0.18  # a new session: one of the interests; where the last one leads; else a popular cluster
DRIFT = 0.12  # chance that a new session's cluster takes the place of an interest
STRAY = 0.10  # chance that an event has nothing to do with the session
SUCCESSOR, REPEAT, RECENT = 0.20, 0.02, 0.35
REPEAT_REACH = 6
REDRAWS = 3
TIES = 0.02
MISMATCH = 0.12  # an ad outside the interests is clicked this much less
PILOT = 2048  # users simulated to find the base rate that gives Table 1's shares


@dataclass(frozen=True)
class UserBlock:
    """What B users did, events user after user. E = their events together.

    first:     number of the block's first user, from 0
    lengths:   [B]
    ads:       [E] ad numbers
    actions:   [E] int8, -1 = null
    times:     [E] unix seconds
    interests: [B, 4] clusters, the ones that the users started with
    """

    first: int
    lengths: NDArray[np.int64]
    ads: NDArray[np.int32]
    actions: NDArray[np.int8]
    times: NDArray[np.int64]
    interests: NDArray[np.int32]


class Population:
    """Users of a catalogue; `block(n)` gives the n-th block of them, always the same."""

    def __init__(self, catalogue: AdCatalogue, num_users: int, release: SyntheticRelease, seed: int) -> None:
        self.catalogue, self.num_users, self.release, self.seed = catalogue, num_users, release, seed
        self.num_blocks = -(-num_users // BLOCK)
        self.rate = self._base_rate()

    def block(self, number: int) -> UserBlock:
        """Simulates block `number`."""
        first = number * BLOCK
        random = stream(self.seed, 4, number)
        behaviour = self._behave(min(BLOCK, self.num_users - first), random)
        actions = self._act(behaviour, random)
        # Time-major while it was simulated, user-major from here on.
        kept = (np.arange(MAX_LENGTH)[:, None] < behaviour.lengths).T
        return UserBlock(
            first,
            behaviour.lengths,
            behaviour.ads.T[kept],
            actions.T[kept],
            START + (behaviour.days.T[kept] * 86_400).astype(np.int64),
            behaviour.interests,
        )

    def _lengths(self, size: int, random: np.random.Generator) -> NDArray[np.int64]:
        """[B]: most users have all 100 events; the rest lean to the long side, down to one."""
        short_mean = 66.5
        full = (self.release.lengths - short_mean) / (MAX_LENGTH - short_mean)
        short = 1 + (99 * np.sqrt(random.random(size))).astype(np.int64)
        return np.where(random.random(size) < full, MAX_LENGTH, short)

    def _behave(self, size: int, random: np.random.Generator) -> _Behaviour:
        """Which ads `size` users see, and when."""
        ads_of = self.catalogue
        lengths = self._lengths(size, random)
        opens = random.random((MAX_LENGTH, size), dtype=np.float32) < SESSION_START
        opens[0] = True
        days = self._clock(lengths, opens, random)
        slots = (days / SLOT).astype(np.int64).clip(0, int(DAYS / SLOT) - 1)

        interests = self._interests(size, random)
        initial = interests.copy()
        session = interests[:, 0].copy()
        previous = np.zeros(size, dtype=np.int32)
        ads = np.empty((MAX_LENGTH, size), dtype=np.int32)
        fits = np.empty((MAX_LENGTH, size), dtype=bool)
        for t in range(MAX_LENGTH):
            self._open_sessions(np.flatnonzero(opens[t]), session, interests, random)
            strays, recent, at, turn = random.random((4, size), dtype=np.float32)
            stray = strays < STRAY
            cluster = np.where(stray, self._popular(random.random(size)), session)

            window = cluster * int(DAYS / SLOT) + slots[t]
            ad = self._shown(window, recent, at, random)
            if t:
                follow = np.flatnonzero((turn < SUCCESSOR) & ~stray & ~opens[t])
                choice = (turn[follow] * (NUM_SUCCESSORS / SUCCESSOR)).astype(np.int64)
                self._show(ad, follow, ads_of.successors[previous[follow], choice], days[t])
                # Hardly anybody is shown an ad twice: whoever would be gets other draws from the same window.
                again = np.flatnonzero((ads[:t] == ad).any(axis=0))
                for _ in range(REDRAWS):
                    u = random.random((2, len(again)), dtype=np.float32)
                    ad[again] = self._shown(window[again], u[0], u[1], random)
                    again = again[(ads[:t, again] == ad[again]).any(axis=0)]
                again = np.flatnonzero(turn > 1 - REPEAT)
                back = 1 + (strays[again] * min(t, REPEAT_REACH)).astype(np.int64)
                self._show(ad, again, ads[t - back, again], days[t])
            ads[t] = ad
            cluster = ads_of.cluster[ad]
            fits[t] = (interests == cluster[:, None]).any(axis=1)
            previous = np.where(cluster == session, ad, previous)
        return _Behaviour(lengths, ads, days, fits, self._eagerness(size, random), initial)

    def _eagerness(self, size: int | tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
        """How readily users act, 1 on average, spread so that about 2 % of them never do (repro: 1.7 %)."""
        return random.gamma(2.8, 1 / 2.8, size).astype(np.float32)

    def _shown(
        self,
        window: NDArray[np.int64],
        recent: NDArray[np.float32],
        at: NDArray[np.float32],
        random: np.random.Generator,
    ) -> NDArray[np.int32]:
        """[n] ads drawn by popularity from the windows, some from the recent part only."""
        age = (recent < RECENT).astype(np.int64)
        # A 32-bit draw would reach only every 16-millionth of a window; the second one fills the gaps.
        fine = at + random.random(len(at), dtype=np.float32) * 2.0**-24
        return self.catalogue.at(self.catalogue.low[age, window] + fine * self.catalogue.span[age, window])

    def _clock(
        self, lengths: NDArray[np.int64], opens: NDArray[np.bool_], random: np.random.Generator
    ) -> NDArray[np.float64]:
        """[T, B] days since the start: long pauses before sessions, short ones within, some events at once.

        Every user's last event lies near the end, and users reach back as far as their own pace takes them.
        """
        size = len(lengths)
        gaps = random.standard_exponential((MAX_LENGTH, size)) * np.where(opens, 1.0, 0.01)
        gaps[(random.random((MAX_LENGTH, size), dtype=np.float32) < TIES) & ~opens] = 0.0
        gaps[0] = 0.0
        gaps *= np.arange(MAX_LENGTH)[:, None] < lengths
        passed = np.cumsum(gaps, axis=0)
        last = DAYS - np.minimum(random.standard_exponential(size), DAYS / 4)
        pace = np.exp(random.normal(np.log(3.0), 0.6, size))  # events a day
        reach = np.minimum(lengths / pace, last - 0.5)
        days: NDArray[np.float64] = last - reach * (1 - passed / np.maximum(passed[-1], 1e-9))
        return days

    def _popular(self, draws: NDArray[np.floating]) -> NDArray[np.int32]:
        """[n] clusters, drawn by how popular they are."""
        found = np.searchsorted(self.catalogue.cluster_share, draws, side="right")
        clusters: NDArray[np.int32] = found.clip(max=self.catalogue.num_clusters - 1).astype(np.int32)
        return clusters

    def _interests(self, size: int, random: np.random.Generator) -> NDArray[np.int32]:
        """[B, 4] clusters: a popular one, and others of which half lie near it."""
        first = self._popular(random.random(size))[:, None]
        near = (first + random.integers(1, 5, (size, INTERESTS - 1))) % self.catalogue.num_clusters
        far = self._popular(random.random((size, INTERESTS - 1)))
        others = np.where(random.random((size, INTERESTS - 1)) < 0.5, near, far)
        return np.concatenate([first, others], axis=1).astype(np.int32)

    def _open_sessions(
        self,
        rows: NDArray[np.int64],
        session: NDArray[np.int32],
        interests: NDArray[np.int32],
        random: np.random.Generator,
    ) -> None:
        """Picks a cluster for the sessions that open in `rows`, and lets interests drift. Both arrays are changed."""
        turn, which, drift = random.random((3, len(rows)), dtype=np.float32)
        stay = interests[rows, np.searchsorted(INTEREST_SHARES, which, side="right").clip(max=INTERESTS - 1)]
        lead = self.catalogue.next_cluster[session[rows]]
        chosen = np.where(turn < STAY, stay, np.where(turn < STAY + FOLLOW, lead, self._popular(which)))
        drifts = (drift < DRIFT) & (turn >= STAY)
        slot = (drift[drifts] / DRIFT * INTERESTS).astype(np.int64).clip(max=INTERESTS - 1)
        interests[rows[drifts], slot] = chosen[drifts]
        session[rows] = chosen

    def _show(
        self, ads: NDArray[np.int32], rows: NDArray[np.int64], wish: NDArray[np.int32], days: NDArray[np.float64]
    ) -> None:
        """Puts the ads wished for into `ads` where they are alive; the rest keep what they had."""
        catalogue, now = self.catalogue, days[rows]
        alive = (catalogue.born[wish] <= now) & (now < catalogue.dies[wish])
        ads[rows[alive]] = wish[alive]

    def _appeal(self, behaviour: _Behaviour) -> NDArray[np.float32]:
        """[T, B] how much likelier than the base rate each event is to be positive; 0 on quiet days."""
        appeal = self.catalogue.quality[behaviour.ads] * behaviour.eagerness
        appeal *= np.where(behaviour.fits, np.float32(1), np.float32(MISMATCH))
        if self.release.quiet_from is not None:
            appeal[behaviour.days >= (self.release.quiet_from - START) / 86_400] = 0
        return appeal

    def _base_rate(self) -> float:
        """The rate at which a trial run of users acts as often as Table 1 says."""
        random = stream(self.seed, 5)
        behaviour = self._behave(PILOT, random)
        kept = np.arange(MAX_LENGTH)[:, None] < behaviour.lengths
        # Eagerness drawn anew for every event: the same mean, without the luck of a few thousand users.
        eagerness = self._eagerness(behaviour.ads.shape, random)
        appeal = self._appeal(dataclasses.replace(behaviour, eagerness=eagerness))[kept]
        wanted, low, high = sum(self.release.shares[1:]), 0.0, 10.0
        for _ in range(40):
            rate = (low + high) / 2
            low, high = (rate, high) if np.minimum(rate * appeal, 0.95).mean() < wanted else (low, rate)
        return rate

    def _act(self, behaviour: _Behaviour, random: np.random.Generator) -> NDArray[np.int8]:
        """[T, B] actions: exposure, or a positive one where the ad appeals, or null."""
        chance = np.minimum(self.rate * self._appeal(behaviour), 0.95)
        draw = random.random(chance.shape, dtype=np.float32)
        actions: NDArray[np.int8] = (draw < chance).astype(np.int8)
        if len(self.release.shares) > 2:
            positives = sum(self.release.shares[1:])
            actions[draw < chance * (self.release.shares[2] / positives)] = 2
        actions[random.random(chance.shape, dtype=np.float32) < NULL_ACTIONS] = -1
        return actions


@dataclass(frozen=True)
class _Behaviour:
    """What users see before they act. `fits`: the ad is of one of the user's interests of that moment."""

    lengths: NDArray[np.int64]
    ads: NDArray[np.int32]
    days: NDArray[np.float64]
    fits: NDArray[np.bool_]
    eagerness: NDArray[np.float32]
    interests: NDArray[np.int32]
