"""The trace of a run: a digest of each thing that crossed an interface, in order, and who made it."""

from __future__ import annotations

from dataclasses import dataclass

from grbench.audit.digests import digest_of


@dataclass(frozen=True)
class Crossing:
    """One thing that crossed an interface.

    maker: the part that made it, such as `tokenizer rq_kmeans`; what: what it is; ranked: whether it depends on the
    histories of the test queries too.
    """

    maker: str
    what: str
    digest: str
    ranked: bool = False

    @property
    def text(self) -> str:
        """`the codes of tokenizer rq_kmeans`."""
        return f"{self.what} of {self.maker}"


class Trace:
    """All crossings of a run so far. Once it is closed, nothing is added."""

    def __init__(self) -> None:
        self.crossings: list[Crossing] = []
        self._closed = False

    def add(self, maker: str, what: str, *values: object, ranked: bool = False) -> None:
        """Notes what crosses an interface now, before anybody can change it."""
        if not self._closed:
            self.crossings.append(Crossing(maker, what, digest_of(*values), ranked))

    def close(self) -> None:
        """Ends the run; what is searched afterwards is not part of it."""
        self._closed = True

    def first_difference(self, other: Trace, *, ranked: bool = True) -> int | None:
        """The index of the first crossing that is not the same in the other run; None where all are. What follows from
        it differs too, so that its maker is the one to look at. ranked: whether what depends on the test queries'
        histories is compared."""
        for index, (own, theirs) in enumerate(zip(self.crossings, other.crossings, strict=False)):
            if own != theirs and (ranked or not own.ranked):
                return index
        longer = max(len(self.crossings), len(other.crossings))
        return None if len(self.crossings) == len(other.crossings) else longer - 1
