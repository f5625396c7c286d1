"""The properties of the synthetic release: the paper's Tables 1-3 as data, and how they scale with its size.

Source: "The Tencent Advertising Algorithm Challenge 2025: All-Modality Generative Recommendation", Tables 1, 2 and 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """One sparse feature of Table 2; pairs are (TencentGR-1M, TencentGR-10M).

    values:   number of different values in the full release
    coverage: share of the ads (users) that have the feature
    growth:   exponent of the number of values as a function of the number of ads, fitted between the full release
              (4,783,154 ads) and the organisers' 1k sample (58,734 ads); 0 where both have the same number
    level:    what determines an ad's value: its `position` in the content tree, its `cluster`, or its `material`
    noise:    share of the ads whose value is random instead
    fresh:    share of the cold ads with a value that no other ad has (as in TencentGR-1M's candidates); of feature 121
              these are the ads with new materials
    together: features of the same group are missing together, as in the release
    width:    largest number of values per user; 1 = a single value
    """

    name: str
    values: tuple[int, int]
    coverage: tuple[float, float]
    growth: float = 0.0
    level: str = "position"
    noise: float = 0.05
    fresh: float = 0.0
    together: str = ""
    width: int = 1


AD_FEATURES = (
    Feature("100", (6, 6), (0.9993, 0.9996), noise=0.30, together="basic"),
    Feature("101", (51, 53), (0.9993, 0.9996), growth=0.034, noise=0.20, together="basic"),
    Feature("102", (90_709, 173_463), (0.9903, 0.9916), growth=0.477, noise=0.02, fresh=0.0856),
    Feature("112", (30, 30), (0.9794, 0.9916), growth=0.041, level="cluster", together="category"),
    Feature("114", (20, 33), (0.9991, 0.9998), growth=0.037, level="cluster", noise=0.30, together="basic"),
    Feature("115", (691, 988), (0.3202, 0.2909), growth=0.297, noise=0.10),
    Feature("116", (18, 20), (0.9990, 0.9998), level="cluster", noise=0.40, together="basic"),
    Feature("117", (497, 558), (0.9794, 0.9916), growth=0.126, together="category"),
    Feature("118", (1_426, 1_636), (0.9792, 0.9916), growth=0.148, together="category"),
    Feature("119", (4_191, 4_950), (0.9790, 0.9915), growth=0.199, together="category"),
    Feature("120", (3_392, 4_045), (0.9780, 0.9914), growth=0.211, noise=0.15, together="category"),
    Feature("121", (2_135_891, 5_041_300), (1.0, 0.9972), growth=0.857, level="material", noise=0.0),
    Feature("122", (90_919, 2_392), (0.9993, 0.9999), growth=0.477, noise=0.10, fresh=0.0861, together="basic"),
)

USER_FEATURES = (
    Feature("103", (86, 87), (0.9991, 0.9996), noise=0.50),
    Feature("104", (2, 2), (0.9962, 0.9976), level="cluster", noise=0.30),
    Feature("105", (7, 7), (0.8580, 0.8567), level="cluster", noise=0.30),
    Feature("109", (3, 3), (0.9996, 0.9998), level="cluster", noise=0.50),
    Feature("106", (14, 14), (0.8791, 0.8825), noise=0.20, width=4),
    Feature("107", (19, 19), (0.3870, 0.3589), noise=0.20, width=3),
    Feature("108", (4, 4), (0.1704, 0.1536), noise=0.20, width=2),
    Feature("110", (2, 2), (0.4298, 0.4051), noise=0.20, width=2),
)


@dataclass(frozen=True)
class SyntheticRelease:
    """A release in Table 1, with statistics measured on the data itself.

    number:           index of the release in the pairs of `Feature`
    ads:              number of ads in the indexer
    pool:             number of candidates
    lengths:          mean number of events per user, each of whom has at most 100
    shares:           share of each action among the events that have one: exposure, click (, conversion)
    quiet_from:       unix seconds from which there are exposures only (2025-05-31 in Beijing); None = never
    target_coverage:  share of the users whose last positive ad is a candidate (78,921 of 98,439 users in 1M)
    cold_share:       share of the candidates without an event
    """

    number: int
    ads: int
    pool: int
    lengths: float
    shares: tuple[float, ...]
    quiet_from: int | None
    target_coverage: float = 78_921 / 98_439
    cold_share: float = 0.226


RELEASES = {
    2: SyntheticRelease(0, 4_783_154, 660_000, 91.06, (0.9019, 0.0981), None),
    3: SyntheticRelease(1, 17_487_676, 3_637_720, 97.29, (0.9463, 0.0285, 0.0252), 1_748_620_800),
}

MAX_LENGTH = 100
EMBEDDING, EMBEDDING_WIDTH = "81", 32
# Of the 4,783,154 ads of 1M, 4,742,961 have a row in emb_81; in the 1k sample 50 of 55,339 rows hold a null.
EMBEDDING_COVERAGE, EMBEDDING_NULLS = 0.9916, 0.0009
NULL_ACTIONS = 0.001


def num_values(feature: Feature, ads: int, release: SyntheticRelease) -> int:
    """The number of values of an ad feature of Table 2 in a release with `ads` ads."""
    full = feature.values[release.number]
    shrunk = full if ads >= release.ads else round(full * math.pow(ads / release.ads, feature.growth))
    # In the 1k sample, the number of materials is 84 % of the number of ads.
    return max(2, min(shrunk, round(0.84 * ads) if feature.level == "material" else ads))


def pool_size(ads: int, release: SyntheticRelease) -> int:
    """The number of candidates of a release with `ads` ads.

    The pools of the full releases are 14 % (1M) and 21 % (10M) of their ads. Small releases get a larger share, at most
    60 %, because metrics at 10 on a tiny pool would be dominated by chance.
    """
    share = release.pool / release.ads * max(1.0, math.pow(release.ads / ads, 0.2))
    return max(1, round(ads * min(share, 0.6)))
