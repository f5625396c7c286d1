"""The users of a synthetic release: interests that drift between sessions, exposures to ads, and actions on them.

A block of users is simulated at once, event by event: every array is [B] or [T, B] (B users, T = 100 events). What a
method can learn, in the order of its benefit: which ads are live and popular now; a user's clusters of interest, and
the one of the current session; which cluster an interest leads to; which ad follows which.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grbench_reference.datasets.synthetic.ads import DAYS, NUM_SUCCESSORS, SLOT, AdCatalogue, random_stream
from grbench_reference.datasets.synthetic.schema import MAX_LENGTH, NULL_ACTIONS, SyntheticRelease

BLOCK = 8192  # users simulated at once, with a random generator for each block: threads never change the result
END = 1_748_880_000  # unix seconds of the end of every release, three days after the first day without positives in 10M
START = END - int(DAYS * 86_400)

INTERESTS = 4
INTEREST_SHARES = np.array([0.45, 0.75, 0.90, 1.0], dtype=np.float32)  # cumulative shares of a user's interests
SESSION_START = 0.18  # probability that an event starts a session; sessions have 5.6 events on average
STAY, FOLLOW = 0.70, 0.18  # a session is about an interest, what the last session leads to, or a popular cluster
DRIFT = 0.12  # probability that a new session's cluster replaces an interest
STRAY = 0.10  # probability that an event is unrelated to the session
SUCCESSOR = 0.20  # probability that an event is on a successor of the previous ad
REPEAT, REPEAT_REACH = 0.02, 6  # probability that an event repeats one of the last 6 ads
RECENT = 0.35  # probability that an ad is drawn from those in the first third of their lifetime
REDRAWS = 3  # attempts to replace an ad that the user has seen
TIES = 0.02  # probability that an event has the time of the event before it
MISMATCH = 0.12  # factor of the probability of an action on an ad outside the interests
PILOT_USERS = 2048  # simulated to find the base rate that gives Table 1's shares


@dataclass(frozen=True)
class UserBlock:
    """The events of B users, user by user; E events in all.

    first:     number of the block's first user, from 0
    lengths:   [B] number of events of each user
    ads:       [E] ad numbers
    actions:   [E] int8, -1 = null
    times:     [E] unix seconds
    interests: [B, 4] clusters of interest at the beginning
    """

    first: int
    lengths: NDArray[np.int64]
    ads: NDArray[np.int32]
    actions: NDArray[np.int8]
    times: NDArray[np.int64]
    interests: NDArray[np.int32]


class Population:
    """The users of a release, simulated in blocks; `block(n)` always gives the same n-th block."""

    def __init__(self, catalogue: AdCatalogue, num_users: int, release: SyntheticRelease, seed: int) -> None:
        self.catalogue, self.num_users, self.release, self.seed = catalogue, num_users, release, seed
        self.num_blocks = -(-num_users // BLOCK)
        self.rate = self._base_rate()

    def block(self, number: int) -> UserBlock:
        """Simulates block `number`."""
        first = number * BLOCK
        random = random_stream(self.seed, 4, number)
        exposures = self._simulate_exposures(min(BLOCK, self.num_users - first), random)
        actions = self._draw_actions(exposures, random)
        # The simulation is time-major, the result user-major.
        kept = (np.arange(MAX_LENGTH)[:, None] < exposures.lengths).T
        return UserBlock(
            first,
            exposures.lengths,
            exposures.ads.T[kept],
            actions.T[kept],
            START + (exposures.days.T[kept] * 86_400).astype(np.int64),
            exposures.interests,
        )

    def _lengths(self, size: int, random: np.random.Generator) -> NDArray[np.int64]:
        """[B]: most users have 100 events, the others 1 to 100, long histories being more frequent."""
        short_mean = 66.5
        full = (self.release.lengths - short_mean) / (MAX_LENGTH - short_mean)
        short = 1 + (99 * np.sqrt(random.random(size))).astype(np.int64)
        return np.where(random.random(size) < full, MAX_LENGTH, short)

    def _simulate_exposures(self, size: int, random: np.random.Generator) -> _Exposures:
        """The ads that `size` users are exposed to, and when."""
        catalogue = self.catalogue
        lengths = self._lengths(size, random)
        starts_session = random.random((MAX_LENGTH, size), dtype=np.float32) < SESSION_START
        starts_session[0] = True
        days = self._days(lengths, starts_session, random)
        slots = (days / SLOT).astype(np.int64).clip(0, int(DAYS / SLOT) - 1)

        interests = self._interests(size, random)
        initial = interests.copy()
        session = interests[:, 0].copy()
        previous = np.zeros(size, dtype=np.int32)
        ads = np.empty((MAX_LENGTH, size), dtype=np.int32)
        fits = np.empty((MAX_LENGTH, size), dtype=bool)
        for t in range(MAX_LENGTH):
            self._start_sessions(np.flatnonzero(starts_session[t]), session, interests, random)
            stray_draw, recent, position, choice_draw = random.random((4, size), dtype=np.float32)
            stray = stray_draw < STRAY
            cluster = np.where(stray, self._draw_clusters(random.random(size)), session)

            window = cluster * int(DAYS / SLOT) + slots[t]
            ad = self._draw_ads(window, recent, position, random)
            if t:
                follow = np.flatnonzero((choice_draw < SUCCESSOR) & ~stray & ~starts_session[t])
                choice = (choice_draw[follow] * (NUM_SUCCESSORS / SUCCESSOR)).astype(np.int64)
                self._place_if_live(ad, follow, catalogue.successors[previous[follow], choice], days[t])
                # Users rarely see an ad twice: repeated ads are drawn again from the same window.
                again = np.flatnonzero((ads[:t] == ad).any(axis=0))
                for _ in range(REDRAWS):
                    u = random.random((2, len(again)), dtype=np.float32)
                    ad[again] = self._draw_ads(window[again], u[0], u[1], random)
                    again = again[(ads[:t, again] == ad[again]).any(axis=0)]
                again = np.flatnonzero(choice_draw > 1 - REPEAT)
                back = 1 + (stray_draw[again] * min(t, REPEAT_REACH)).astype(np.int64)
                self._place_if_live(ad, again, ads[t - back, again], days[t])
            ads[t] = ad
            cluster = catalogue.cluster[ad]
            fits[t] = (interests == cluster[:, None]).any(axis=1)
            previous = np.where(cluster == session, ad, previous)
        return _Exposures(lengths, ads, days, fits, self._activity(size, random), initial)

    def _activity(self, size: int | tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
        """The users' rates of positive actions, 1 on average. About 2 % of the users have none (real data: 1.7 %)."""
        return random.gamma(2.8, 1 / 2.8, size).astype(np.float32)

    def _draw_ads(
        self,
        window: NDArray[np.int64],
        recent: NDArray[np.float32],
        position: NDArray[np.float32],
        random: np.random.Generator,
    ) -> NDArray[np.int32]:
        """[n] ads drawn by popularity from their windows, some from recent ads. recent, position: uniform draws."""
        age = (recent < RECENT).astype(np.int64)
        # A float32 draw has a resolution of 2^-24; a second draw refines it.
        fine = position + random.random(len(position), dtype=np.float32) * 2.0**-24
        return self.catalogue.ads_at(
            self.catalogue.window_low[age, window] + fine * self.catalogue.window_span[age, window]
        )

    def _days(
        self, lengths: NDArray[np.int64], starts_session: NDArray[np.bool_], random: np.random.Generator
    ) -> NDArray[np.float64]:
        """[T, B] days since the start: long gaps before sessions, short ones within, some events at the same time.

        Each user's last event is near the end; the time span before depends on the user's event rate.
        """
        size = len(lengths)
        gaps = random.standard_exponential((MAX_LENGTH, size)) * np.where(starts_session, 1.0, 0.01)
        gaps[(random.random((MAX_LENGTH, size), dtype=np.float32) < TIES) & ~starts_session] = 0.0
        gaps[0] = 0.0
        gaps *= np.arange(MAX_LENGTH)[:, None] < lengths
        passed = np.cumsum(gaps, axis=0)
        last = DAYS - np.minimum(random.standard_exponential(size), DAYS / 4)
        rate = np.exp(random.normal(np.log(3.0), 0.6, size))  # events a day
        time_span = np.minimum(lengths / rate, last - 0.5)
        days: NDArray[np.float64] = last - time_span * (1 - passed / np.maximum(passed[-1], 1e-9))
        return days

    def _draw_clusters(self, draws: NDArray[np.floating]) -> NDArray[np.int32]:
        """[n] clusters, drawn by popularity. draws: [n] uniform in [0, 1)."""
        found = np.searchsorted(self.catalogue.cluster_share, draws, side="right")
        clusters: NDArray[np.int32] = found.clip(max=self.catalogue.num_clusters - 1).astype(np.int32)
        return clusters

    def _interests(self, size: int, random: np.random.Generator) -> NDArray[np.int32]:
        """[B, 4] clusters: one drawn by popularity, and three others, half of them similar to it."""
        first = self._draw_clusters(random.random(size))[:, None]
        near = (first + random.integers(1, 5, (size, INTERESTS - 1))) % self.catalogue.num_clusters
        far = self._draw_clusters(random.random((size, INTERESTS - 1)))
        others = np.where(random.random((size, INTERESTS - 1)) < 0.5, near, far)
        return np.concatenate([first, others], axis=1).astype(np.int32)

    def _start_sessions(
        self,
        rows: NDArray[np.int64],
        session: NDArray[np.int32],
        interests: NDArray[np.int32],
        random: np.random.Generator,
    ) -> None:
        """Draws the cluster of the sessions that start in `rows`, and lets interests drift; changes both arrays."""
        choice_draw, which, drift = random.random((3, len(rows)), dtype=np.float32)
        stay = interests[rows, np.searchsorted(INTEREST_SHARES, which, side="right").clip(max=INTERESTS - 1)]
        lead = self.catalogue.next_cluster[session[rows]]
        chosen = np.where(
            choice_draw < STAY, stay, np.where(choice_draw < STAY + FOLLOW, lead, self._draw_clusters(which))
        )
        drifts = (drift < DRIFT) & (choice_draw >= STAY)
        slot = (drift[drifts] / DRIFT * INTERESTS).astype(np.int64).clip(max=INTERESTS - 1)
        interests[rows[drifts], slot] = chosen[drifts]
        session[rows] = chosen

    def _place_if_live(
        self, ads: NDArray[np.int32], rows: NDArray[np.int64], chosen: NDArray[np.int32], days: NDArray[np.float64]
    ) -> None:
        """Sets `ads[rows]` to `chosen` where those ads are live; the others stay."""
        catalogue, now = self.catalogue, days[rows]
        live = (catalogue.start_day[chosen] <= now) & (now < catalogue.end_day[chosen])
        ads[rows[live]] = chosen[live]

    def _propensity(self, exposures: _Exposures) -> NDArray[np.float32]:
        """[T, B] factor of the base rate with which each event is positive; 0 on days without positives."""
        propensity = self.catalogue.quality[exposures.ads] * exposures.activity
        propensity *= np.where(exposures.fits, np.float32(1), np.float32(MISMATCH))
        if self.release.quiet_from is not None:
            propensity[exposures.days >= (self.release.quiet_from - START) / 86_400] = 0
        return propensity

    def _base_rate(self) -> float:
        """The base rate with which a simulation of PILOT_USERS users gives the shares of actions of Table 1."""
        random = random_stream(self.seed, 5)
        exposures = self._simulate_exposures(PILOT_USERS, random)
        kept = np.arange(MAX_LENGTH)[:, None] < exposures.lengths
        # Activity is drawn for every event: the same mean, with less variance than for a few thousand users.
        activity = self._activity(exposures.ads.shape, random)
        propensity = self._propensity(dataclasses.replace(exposures, activity=activity))[kept]
        target, low, high = sum(self.release.shares[1:]), 0.0, 10.0
        for _ in range(40):
            rate = (low + high) / 2
            low, high = (rate, high) if np.minimum(rate * propensity, 0.95).mean() < target else (low, rate)
        return rate

    def _draw_actions(self, exposures: _Exposures, random: np.random.Generator) -> NDArray[np.int8]:
        """[T, B] actions: exposure, a positive action by propensity, or null."""
        probability = np.minimum(self.rate * self._propensity(exposures), 0.95)
        draw = random.random(probability.shape, dtype=np.float32)
        actions: NDArray[np.int8] = (draw < probability).astype(np.int8)
        if len(self.release.shares) > 2:
            positives = sum(self.release.shares[1:])
            actions[draw < probability * (self.release.shares[2] / positives)] = 2
        actions[random.random(probability.shape, dtype=np.float32) < NULL_ACTIONS] = -1
        return actions


@dataclass(frozen=True)
class _Exposures:
    """Exposures before actions are drawn. lengths: [B]; ads, days: [T, B]; fits: [T, B] bool, the ad is of one of the
    user's current interests; activity: [B]; interests: [B, 4] at the beginning."""

    lengths: NDArray[np.int64]
    ads: NDArray[np.int32]
    days: NDArray[np.float64]
    fits: NDArray[np.bool_]
    activity: NDArray[np.float32]
    interests: NDArray[np.int32]
