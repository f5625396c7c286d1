"""The ads of a synthetic release: a content tree, long-tailed popularity, short lifetimes, transitions between ads.

Ads are sorted by (cluster, start of life), so that the live ads of a cluster at any time are a slice, and an ad can be
drawn by popularity with a search in the cumulative popularity. Letters: N ads, C clusters, S time slots.
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

DAYS = 60.0  # time span of the release
SLOT = 0.25  # days; the time resolution of which ads are live
LIFETIME = (6.0, 24.0)  # days, the same for all ads of a cluster
# Chosen to match the real tail with 1 M users: the top 1 % of ads have half of the events, 73 % have at most 5.
POPULARITY_SPREAD, POPULARITY_FLOOR = 2.9, 0.03
NUM_SUCCESSORS = 2


def random_stream(seed: int, *purpose: int) -> np.random.Generator:
    """An independent random generator for each purpose, so that the draws of one never change those of another."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *purpose])))


def hash_bits(keys: NDArray[np.integer], seed: int, purpose: int) -> NDArray[np.uint64]:
    """64 hash bits for each key (splitmix64's finaliser): random numbers that depend on the key only."""
    with np.errstate(over="ignore"):
        mixed = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + purpose * 0xD1342543DE82EF95) % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hash_uniform(keys: NDArray[np.integer], seed: int, purpose: int) -> Floats:
    """A number in [0, 1) for each key."""
    return (hash_bits(keys, seed, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Ads:
    """The attributes that determine the content of ads: [n] each.

    number:   0..N-1 in the order (cluster, start of life); cold ads follow from N
    cluster:  0..C-1; clusters with close numbers are similar
    material: ads with the same material are near-duplicates; materials from `AdCatalogue.num_materials` on are new
    """

    number: NDArray[np.int64]
    cluster: NDArray[np.int32]
    material: NDArray[np.int32]


class AdCatalogue:
    """All ads of the release's indexer, and the cold ones that are only in its candidate table."""

    def __init__(self, num_ads: int, num_cold: int, release: SyntheticRelease, seed: int) -> None:
        self.num_ads, self.num_cold, self.seed = num_ads, num_cold, seed
        self.num_clusters = max(2, round(0.4 * num_ads**0.5))
        self.num_super_clusters = max(2, round(self.num_clusters**0.5))
        self.num_values = {feature.name: num_values(feature, num_ads, release) for feature in AD_FEATURES}
        self.num_materials = self.num_values["121"]
        # Value ids are shuffled, so that similar positions do not have similar value ids.
        self.value_ids = {
            feature.name: random_stream(seed, 2, int(feature.name))
            .permutation(self.num_values[feature.name])
            .astype(np.int32)
            for feature in AD_FEATURES
        }
        self.coverage = {feature.name: feature.coverage[release.number] for feature in AD_FEATURES}

        random = random_stream(seed, 1)
        weight = np.exp(random.normal(0.0, 0.5, self.num_clusters))
        self.cluster_share = np.cumsum(weight / weight.sum())
        # Popular clusters have more ads, but less than in proportion, so that popularity per ad differs by cluster.
        ads_weight = np.cumsum(weight**0.7)
        sizes = np.bincount(
            np.searchsorted(ads_weight, random.random(num_ads) * ads_weight[-1], side="right").clip(
                max=self.num_clusters - 1
            ),
            minlength=self.num_clusters,
        )
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.cluster = np.repeat(np.arange(self.num_clusters, dtype=np.int32), sizes)
        self.lifetime = random.uniform(*LIFETIME, self.num_clusters)
        self.next_cluster = self._transitions(random)

        # An ad is live at a time drawn like the times of users' events, which falls anywhere in its lifetime.
        age = np.minimum(random.lognormal(np.log(30.0), 0.6, num_ads), DAYS)
        start_day = DAYS - 1 - random.random(num_ads) * age - random.random(num_ads) * self.lifetime[self.cluster]
        # One sort by cluster, then start of life: 1,000 days separate the clusters.
        self.order_key = np.sort(self.cluster * 1000.0 + start_day)
        self.start_day = (self.order_key - self.cluster * 1000.0).astype(np.float32)
        self.end_day = (self.start_day + self.lifetime[self.cluster]).astype(np.float32)
        self.material = self._materials(random)
        self.quality = np.exp(random.normal(0.0, 0.4, num_ads)).astype(np.float32)

        popularity = np.exp(random.normal(0.0, POPULARITY_SPREAD, num_ads))
        popularity += POPULARITY_FLOOR * np.exp(POPULARITY_SPREAD**2 / 2)
        self.successors = self._successors(popularity, random)
        self.cumulative_popularity = np.concatenate([[0.0], np.cumsum(popularity)])
        steps = np.arange(2 * num_ads) * (self.cumulative_popularity[-1] / (2 * num_ads))
        self.first_ad_of_step = (np.searchsorted(self.cumulative_popularity, steps, side="right") - 1).astype(np.int32)
        self.window_low, self.window_span = self._windows()
        self.item_ids = (random.permutation(num_ads) + 1).astype(np.int32)  # RID of each ad
        self.creative_ids = 20_000_000_001 + 2 * random.permutation(num_ads + num_cold).astype(np.int64)
        self.cold = self._cold_ads(random)

    def _transitions(self, random: np.random.Generator) -> NDArray[np.int32]:
        """[C]: the cluster that an interest in each cluster tends to lead to, a similar one."""
        step = random.integers(1, max(2, self.num_clusters // self.num_super_clusters), self.num_clusters)
        leads_to: NDArray[np.int32] = ((np.arange(self.num_clusters) + step) % self.num_clusters).astype(np.int32)
        return leads_to

    def _materials(self, random: np.random.Generator) -> NDArray[np.int32]:
        """[N]: the material of each ad, shared by runs of consecutive ads."""
        first = np.zeros(self.num_ads, dtype=bool)
        first[random.choice(self.num_ads - 1, self.num_materials - 1, replace=False) + 1] = True
        first[0] = True
        material: NDArray[np.int32] = (np.cumsum(first) - 1).astype(np.int32)
        return material

    def _num_started_before(self, cluster: NDArray[np.integer], day: Floats) -> Ints:
        """The number of ads that sort before each (cluster, day), over all clusters."""
        return np.searchsorted(self.order_key, cluster * 1000.0 + np.maximum(day, -400.0))

    def _successors(self, popularity: Floats, random: np.random.Generator) -> NDArray[np.int32]:
        """[N, 2]: the ads that tend to follow each ad, from its cluster and of about its age.

        They are drawn by popularity ** .8, so that successors are not simply the most popular ads.
        """
        running = np.concatenate([[0.0], np.cumsum(popularity**0.8)])
        life = self.lifetime[self.cluster]
        low = self._num_started_before(self.cluster, self.start_day - 0.5 * life)
        high = np.maximum(self._num_started_before(self.cluster, self.start_day + 0.25 * life), low + 1)
        successors = np.empty((self.num_ads, NUM_SUCCESSORS), dtype=np.int32)
        for column in range(NUM_SUCCESSORS):
            at = running[low] + random.random(self.num_ads) * (running[high] - running[low])
            successors[:, column] = (np.searchsorted(running, at, side="right") - 1).clip(0, self.num_ads - 1)
        return successors

    def _windows(self) -> tuple[Floats, Floats]:
        """[2, C * S] each: start and length, in cumulative popularity, of the ads live in each (cluster, slot).

        Row 0: all live ads; row 1: those in the first third of their lifetime, because attention fades with age.
        """
        days = (np.arange(int(DAYS / SLOT)) + 1) * SLOT
        cluster = np.repeat(np.arange(self.num_clusters), len(days))
        day = np.tile(days, self.num_clusters)
        start, end = self.starts[cluster], self.starts[cluster + 1]
        # A cluster without live ads shows the ad that started last (or starts first); an empty one its neighbour's.
        high = np.clip(self._num_started_before(cluster, day), start + 1, np.maximum(end, start + 1))
        rows = [
            np.clip(self._num_started_before(cluster, day - share * self.lifetime[cluster]), start, high - 1)
            for share in (1, 1 / 3)
        ]
        high, rows = np.minimum(high, self.num_ads), [np.minimum(row, self.num_ads - 1) for row in rows]
        low = np.stack([self.cumulative_popularity[row] for row in rows])
        return low, self.cumulative_popularity[high] - low

    def ads_at(self, popularity: Floats) -> NDArray[np.int32]:
        """The ad at each value [n] of the cumulative popularity.

        A table of 2 N equal steps gives the ad to start from; the minimum popularity of ads keeps the scan from there
        short. It costs two cache misses per draw, a binary search over millions of ads a dozen.
        """
        popularity = np.minimum(popularity, np.nextafter(self.cumulative_popularity[-1], 0.0))
        step = (
            (popularity * (len(self.first_ad_of_step) / self.cumulative_popularity[-1]))
            .astype(np.int64)
            .clip(max=len(self.first_ad_of_step) - 1)
        )
        ads: NDArray[np.int32] = self.first_ad_of_step[step]
        short = np.flatnonzero(self.cumulative_popularity[ads + 1] <= popularity)
        while len(short):
            ads[short] += 1
            short = short[self.cumulative_popularity[ads[short] + 1] <= popularity[short]]
        return ads

    def _cold_ads(self, random: np.random.Generator) -> Ads:
        """Ads without events: 42 % reuse a known material, the others have new ones."""
        share = random.random(self.num_cold)
        cluster = np.searchsorted(self.cluster_share, share, side="right").clip(max=self.num_clusters - 1)
        known = random.random(self.num_cold) < 0.42
        newest = np.minimum(self.starts[cluster + 1], self.num_ads) - 1  # the newest ad of the same cluster
        material = np.where(known, self.material[newest], self.num_materials + np.arange(self.num_cold))
        numbers = self.num_ads + np.arange(self.num_cold)
        return Ads(numbers, cluster.astype(np.int32), material.astype(np.int32))

    def ads(self, numbers: NDArray[np.integer]) -> Ads:
        """The ads with these numbers [n], including cold ones."""
        cold = numbers >= self.num_ads
        known, new = np.where(cold, 0, numbers), np.where(cold, numbers - self.num_ads, 0)
        if not cold.any():
            return Ads(numbers.astype(np.int64), self.cluster[known], self.material[known])
        return Ads(
            numbers.astype(np.int64),
            np.where(cold, self.cold.cluster[new], self.cluster[known]),
            np.where(cold, self.cold.material[new], self.material[known]),
        )

    def position(self, ads: Ads) -> Floats:
        """[n] in [0, 1): the position in the content tree. The more positions are rounded, the more ads share one."""
        position: Floats = (ads.cluster + hash_uniform(ads.material, self.seed, 10)) / self.num_clusters
        return position

    def feature(self, ads: Ads, feature: Feature) -> tuple[Ints, NDArray[np.bool_]]:
        """([n] value ids from 1, [n] bool: the ad has the feature). Ids above num_values are new values."""
        purpose, size = int(feature.name), self.num_values[feature.name]
        if feature.level == "material":
            index = ads.material.astype(np.int64)
        elif feature.level == "cluster":
            index = (hash_bits(ads.cluster, self.seed, purpose) % np.uint64(size)).astype(np.int64)
        else:
            index = (self.position(ads) * size).astype(np.int64)
        noisy = hash_uniform(ads.number, self.seed, purpose + 1000) < feature.noise
        stray = (hash_uniform(ads.number, self.seed, purpose + 2000) ** 2 * size).astype(np.int64)
        index = np.where(noisy, stray, index)
        new = (ads.number >= self.num_ads) & (hash_uniform(ads.number, self.seed, purpose + 4000) < feature.fresh)
        index = np.where(new, size + ads.number - self.num_ads, index)
        value = np.where(index < size, self.value_ids[feature.name][np.minimum(index, size - 1)], index) + 1
        return value, self._has_feature(ads, feature)

    def _has_feature(self, ads: Ads, feature: Feature) -> NDArray[np.bool_]:
        """[n] bool. Features of a group are missing together; those with less coverage are missing more often."""
        group = sum(feature.together.encode()) if feature.together else int(feature.name)
        has: NDArray[np.bool_] = hash_uniform(ads.number, self.seed, group + 3000) < self.coverage[feature.name]
        return has

    def embeddings(self, ads: Ads) -> NDArray[np.float32]:
        """[n, 32] unit vectors: the sum of vectors of super-cluster, cluster, part of the cluster, material and ad."""
        random = random_stream(self.seed, 3)
        supers = random.normal(0.0, 1.0, (self.num_super_clusters, EMBEDDING_WIDTH)).astype(np.float32)
        clusters = random.normal(0.0, 1.0, (self.num_clusters, EMBEDDING_WIDTH)).astype(np.float32)
        table = random.normal(0.0, 1.0, (4096, EMBEDDING_WIDTH)).astype(np.float32)
        super_cluster = ads.cluster.astype(np.int64) * self.num_super_clusters // self.num_clusters
        part = (self.position(ads) * self.num_clusters * 12).astype(np.int64)

        def hash_vectors(keys: NDArray[np.integer], purpose: int) -> NDArray[np.float32]:
            drawn: NDArray[np.float32] = table[hash_bits(keys, self.seed, purpose) % np.uint64(len(table))]
            return drawn

        vectors = 0.6 * supers[super_cluster] + 0.6 * clusters[ads.cluster] + 0.3 * hash_vectors(part, 11)
        vectors += 0.15 * (hash_vectors(ads.material, 12) + hash_vectors(ads.material, 13)) / np.float32(2**0.5)
        vectors += 0.01 * hash_vectors(ads.number, 14) * (hash_uniform(ads.number, self.seed, 15) < 0.7)[:, None]
        unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit
