"""The ads of a synthetic release: a content tree, popularity with a long tail, short lives, transitions.

Ads lie sorted by (cluster, birth), so that the ads of a cluster that are alive at a moment are one slice, and a draw
by popularity is one binary search in a running sum. Letters: N ads, C clusters, S time slots, G materials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grbench_reference.datasets.synthetic.schema import (
    AD_FEATURES,
    EMBEDDING_WIDTH,
    Feature,
    SyntheticRelease,
    num_values,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAYS = 60.0  # how long the release lasts
SLOT = 0.25  # days; which ads are alive is known to this grain
LIFE = (6.0, 24.0)  # days an ad is shown, the same for all ads of a cluster
# With this spread and floor 1 M users give the real tail: the top 1 % of ads take half of the events, 73 % have <= 5.
POPULARITY_SPREAD, POPULARITY_FLOOR = 2.9, 0.03
NUM_SUCCESSORS = 2


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """An independent random stream for each purpose, so that no size or order of work changes another's draws."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *purpose])))


def hashed(keys: NDArray[np.integer], seed: int, purpose: int) -> NDArray[np.uint64]:
    """64 well-mixed bits a key (splitmix64's finaliser): chance that belongs to an ad, whoever asks, in any order."""
    with np.errstate(over="ignore"):
        mixed = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + purpose * 0xD1342543DE82EF95) % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hashed_uniform(keys: NDArray[np.integer], seed: int, purpose: int) -> Floats:
    """A number in [0, 1) a key."""
    return (hashed(keys, seed, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Ads:
    """What decides an ad's content, wherever it is written: [n] each.

    number:   the ad's number, 0..N-1 in the order (cluster, birth); cold ads follow from N
    cluster:  0..C-1; neighbours are alike
    material: 0..; ads of one material are near-duplicates. Materials from `Catalogue.num_materials` are new
    """

    number: NDArray[np.int64]
    cluster: NDArray[np.int32]
    material: NDArray[np.int32]


class AdCatalogue:
    """Every ad that the release's index knows, and the cold ones that only its candidate table does."""

    def __init__(self, num_ads: int, num_cold: int, release: SyntheticRelease, seed: int) -> None:
        self.num_ads, self.num_cold, self.seed = num_ads, num_cold, seed
        self.num_clusters = max(2, round(0.4 * num_ads**0.5))
        self.num_supers = max(2, round(self.num_clusters**0.5))
        self.num_values = {feature.name: num_values(feature, num_ads, release) for feature in AD_FEATURES}
        self.num_materials = self.num_values["121"]
        # Value ids are shuffled: like ads have like places, but nothing can be read from the ids themselves.
        self.value_ids = {
            feature.name: stream(seed, 2, int(feature.name)).permutation(self.num_values[feature.name]).astype(np.int32)
            for feature in AD_FEATURES
        }
        self.coverage = {feature.name: feature.coverage[release.number] for feature in AD_FEATURES}

        random = stream(seed, 1)
        weight = np.exp(random.normal(0.0, 0.5, self.num_clusters))
        self.cluster_share = np.cumsum(weight / weight.sum())
        # Larger audiences attract more ads, though not in proportion, so that clusters differ in popularity per ad.
        crowd = np.cumsum(weight**0.7)
        sizes = np.bincount(
            np.searchsorted(crowd, random.random(num_ads) * crowd[-1], side="right").clip(max=self.num_clusters - 1),
            minlength=self.num_clusters,
        )
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.cluster = np.repeat(np.arange(self.num_clusters, dtype=np.int32), sizes)
        self.life = random.uniform(*LIFE, self.num_clusters)
        self.next_cluster = self._transitions(random)

        # Ads live when people look: a moment drawn as users' events are, which falls anywhere in the ad's life.
        reach = np.minimum(random.lognormal(np.log(30.0), 0.6, num_ads), DAYS)
        born = DAYS - 1 - random.random(num_ads) * reach - random.random(num_ads) * self.life[self.cluster]
        # One sort by cluster and birth: the cluster counts as a distance that no birth can bridge.
        self.order_key = np.sort(self.cluster * 1000.0 + born)
        self.born = (self.order_key - self.cluster * 1000.0).astype(np.float32)
        self.dies = (self.born + self.life[self.cluster]).astype(np.float32)
        self.material = self._materials(random)
        self.quality = np.exp(random.normal(0.0, 0.4, num_ads)).astype(np.float32)

        popularity = np.exp(random.normal(0.0, POPULARITY_SPREAD, num_ads))
        popularity += POPULARITY_FLOOR * np.exp(POPULARITY_SPREAD**2 / 2)
        self.successors = self._successors(popularity, random)
        self.running = np.concatenate([[0.0], np.cumsum(popularity)])
        steps = np.arange(2 * num_ads) * (self.running[-1] / (2 * num_ads))
        self.guide = (np.searchsorted(self.running, steps, side="right") - 1).astype(np.int32)
        self.low, self.span = self._windows()
        self.item_ids = (random.permutation(num_ads) + 1).astype(np.int32)  # RID of each ad
        self.creative_ids = 20_000_000_001 + 2 * random.permutation(num_ads + num_cold).astype(np.int64)
        self.cold = self._cold_ads(random)

    def _transitions(self, random: np.random.Generator) -> NDArray[np.int32]:
        """[C]: the cluster that an interest in each tends to lead to, mostly one that lies near."""
        step = random.integers(1, max(2, self.num_clusters // self.num_supers), self.num_clusters)
        leads_to: NDArray[np.int32] = ((np.arange(self.num_clusters) + step) % self.num_clusters).astype(np.int32)
        return leads_to

    def _materials(self, random: np.random.Generator) -> NDArray[np.int32]:
        """[N]: runs of ads that follow each other in a cluster are made from one material."""
        first = np.zeros(self.num_ads, dtype=bool)
        first[random.choice(self.num_ads - 1, self.num_materials - 1, replace=False) + 1] = True
        first[0] = True
        material: NDArray[np.int32] = (np.cumsum(first) - 1).astype(np.int32)
        return material

    def _born_before(self, cluster: NDArray[np.integer], day: Floats) -> Ints:
        """The number of ads, counted over all, that lie before each (cluster, day)."""
        return np.searchsorted(self.order_key, cluster * 1000.0 + np.maximum(day, -400.0))

    def _successors(self, popularity: Floats, random: np.random.Generator) -> NDArray[np.int32]:
        """[N, 2]: the ads that tend to be shown after each one, of its cluster and about its age.

        Popularity counts less than it does otherwise, so that what follows an ad is not just what is popular anyway.
        """
        running = np.concatenate([[0.0], np.cumsum(popularity**0.8)])
        life = self.life[self.cluster]
        low = self._born_before(self.cluster, self.born - 0.5 * life)
        high = np.maximum(self._born_before(self.cluster, self.born + 0.25 * life), low + 1)
        successors = np.empty((self.num_ads, NUM_SUCCESSORS), dtype=np.int32)
        for column in range(NUM_SUCCESSORS):
            at = running[low] + random.random(self.num_ads) * (running[high] - running[low])
            successors[:, column] = (np.searchsorted(running, at, side="right") - 1).clip(0, self.num_ads - 1)
        return successors

    def _windows(self) -> tuple[Floats, Floats]:
        """[2, C * S] where the running sum starts and how far it goes, for the ads alive in each (cluster, slot).

        Row 0: every ad alive; row 1: those in the first third of their life, which is how attention fades with age.
        """
        days = (np.arange(int(DAYS / SLOT)) + 1) * SLOT
        cluster = np.repeat(np.arange(self.num_clusters), len(days))
        day = np.tile(days, self.num_clusters)
        start, end = self.starts[cluster], self.starts[cluster + 1]
        # A cluster with nobody alive shows the ad born last (or the first to come); an empty one its neighbour's.
        high = np.clip(self._born_before(cluster, day), start + 1, np.maximum(end, start + 1))
        rows = [
            np.clip(self._born_before(cluster, day - share * self.life[cluster]), start, high - 1)
            for share in (1, 1 / 3)
        ]
        high, rows = np.minimum(high, self.num_ads), [np.minimum(row, self.num_ads - 1) for row in rows]
        low = np.stack([self.running[row] for row in rows])
        return low, self.running[high] - low

    def at(self, running: Floats) -> NDArray[np.int32]:
        """The ad at each value of the running sum of popularity.

        A table of 2 N equal steps says where to start, and the floor under every popularity keeps the rest short:
        two cache misses a draw, where a binary search in millions of ads takes a dozen.
        """
        running = np.minimum(running, np.nextafter(self.running[-1], 0.0))
        step = (running * (len(self.guide) / self.running[-1])).astype(np.int64).clip(max=len(self.guide) - 1)
        at: NDArray[np.int32] = self.guide[step]
        short = np.flatnonzero(self.running[at + 1] <= running)
        while len(short):
            at[short] += 1
            short = short[self.running[at[short] + 1] <= running[short]]
        return at

    def _cold_ads(self, random: np.random.Generator) -> Ads:
        """New ads of the last days: some re-use a known material, most bring their own."""
        share = random.random(self.num_cold)
        cluster = np.searchsorted(self.cluster_share, share, side="right").clip(max=self.num_clusters - 1)
        known = random.random(self.num_cold) < 0.42
        alike = np.minimum(self.starts[cluster + 1], self.num_ads) - 1  # the newest ad of the same cluster
        material = np.where(known, self.material[alike], self.num_materials + np.arange(self.num_cold))
        numbers = self.num_ads + np.arange(self.num_cold)
        return Ads(numbers, cluster.astype(np.int32), material.astype(np.int32))

    def ads(self, numbers: NDArray[np.integer]) -> Ads:
        """Looks ads up by number, cold ones included."""
        cold = numbers >= self.num_ads
        known, new = np.where(cold, 0, numbers), np.where(cold, numbers - self.num_ads, 0)
        if not cold.any():
            return Ads(numbers.astype(np.int64), self.cluster[known], self.material[known])
        return Ads(
            numbers.astype(np.int64),
            np.where(cold, self.cold.cluster[new], self.cluster[known]),
            np.where(cold, self.cold.material[new], self.material[known]),
        )

    def place(self, ads: Ads) -> Floats:
        """[n] in [0, 1): an ad's place in the content tree; the coarser one looks, the more ads share a place."""
        place: Floats = (ads.cluster + hashed_uniform(ads.material, self.seed, 10)) / self.num_clusters
        return place

    def feature(self, ads: Ads, feature: Feature) -> tuple[Ints, NDArray[np.bool_]]:
        """[n] value ids from 1, and whether the ad has the feature at all. A value past the last one is a new one."""
        purpose, size = int(feature.name), self.num_values[feature.name]
        if feature.level == "material":
            index = ads.material.astype(np.int64)
        elif feature.level == "cluster":
            index = (hashed(ads.cluster, self.seed, purpose) % np.uint64(size)).astype(np.int64)
        else:
            index = (self.place(ads) * size).astype(np.int64)
        noisy = hashed_uniform(ads.number, self.seed, purpose + 1000) < feature.noise
        stray = (hashed_uniform(ads.number, self.seed, purpose + 2000) ** 2 * size).astype(np.int64)
        index = np.where(noisy, stray, index)
        new = (ads.number >= self.num_ads) & (hashed_uniform(ads.number, self.seed, purpose + 4000) < feature.fresh)
        index = np.where(new, size + ads.number - self.num_ads, index)
        value = np.where(index < size, self.value_ids[feature.name][np.minimum(index, size - 1)], index) + 1
        return value, self._has(ads, feature)

    def _has(self, ads: Ads, feature: Feature) -> NDArray[np.bool_]:
        """Features that go together are missing together; a feature with less coverage than its group loses more."""
        group = sum(feature.together.encode()) if feature.together else int(feature.name)
        has: NDArray[np.bool_] = hashed_uniform(ads.number, self.seed, group + 3000) < self.coverage[feature.name]
        return has

    def embeddings(self, ads: Ads) -> NDArray[np.float32]:
        """[n, 32] unit vectors: super-cluster + cluster + part of the cluster + material + a little of its own."""
        random = stream(self.seed, 3)
        supers = random.normal(0.0, 1.0, (self.num_supers, EMBEDDING_WIDTH)).astype(np.float32)
        clusters = random.normal(0.0, 1.0, (self.num_clusters, EMBEDDING_WIDTH)).astype(np.float32)
        table = random.normal(0.0, 1.0, (4096, EMBEDDING_WIDTH)).astype(np.float32)
        super_cluster = ads.cluster.astype(np.int64) * self.num_supers // self.num_clusters
        part = (self.place(ads) * self.num_clusters * 12).astype(np.int64)

        def own(keys: NDArray[np.integer], purpose: int) -> NDArray[np.float32]:
            drawn: NDArray[np.float32] = table[hashed(keys, self.seed, purpose) % np.uint64(len(table))]
            return drawn

        vectors = 0.6 * supers[super_cluster] + 0.6 * clusters[ads.cluster] + 0.3 * own(part, 11)
        vectors += 0.15 * (own(ads.material, 12) + own(ads.material, 13)) / np.float32(2**0.5)
        vectors += 0.01 * own(ads.number, 14) * (hashed_uniform(ads.number, self.seed, 15) < 0.7)[:, None]
        unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit
