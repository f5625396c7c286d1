"""A store that was prepared elsewhere, in the place of the data that it was made of.

`origin.json` in the store says what these were: the dataset with its options, and the digest of its source. So a cell
on the store is the same experiment as on the source, wherever the store lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.data.store import STORE_FILE
from grbench.data.store_writer import store_digest
from grbench.errors import DataError, cut
from grbench.interfaces import Dataset, optional
from grbench.registry.component import Component
from grbench.results.identity import dataset_options
from grbench.storage.listing import FileListing, read_small
from grbench.storage.place import Place
from grbench.temporary import replacing

if TYPE_CHECKING:
    from grbench.registry.discovery import Registry

ORIGIN_FILE = "origin.json"


@dataclass(frozen=True)
class Origin:
    """dataset: name of the plug-in; options: that its identity has; contents: hashes of files that options name;
    source: digest of the source."""

    dataset: str
    options: dict[str, Any]
    contents: dict[str, Any]
    source: str


def write_origin(store: Path, source: Dataset, dataset: Component, registry: Registry) -> None:
    """Says in a store what it was made of, where it does not say so yet. source: what `dataset` gives."""
    path = store / ORIGIN_FILE
    if path.is_file():
        return
    contents = registry.file_contents("datasets", dataset, "dataset")
    origin = Origin(dataset.name, dataset_options(registry, dataset), contents, str(source.digest()))
    with replacing(path) as partial:
        partial.write_text(json.dumps(asdict(origin), indent=1), encoding="utf-8")


class PreparedStore:
    """Stands for a Dataset: has those of its methods that can be asked without the source."""

    def __init__(self, listing: FileListing, origin: Origin, facts: Mapping[str, Any], dataset: Dataset) -> None:
        """facts: the content of its `store.json`; dataset: of the same name and options."""
        self.listing, self._origin, self._facts, self._dataset = listing, origin, facts, dataset

    def digest(self) -> str:
        """Of the source that it was made of."""
        return self._origin.source

    def store_bytes(self) -> int:
        """Of its files."""
        return self.listing.size

    def no_candidates(self) -> str | None:
        """Where its source had no candidate table."""
        return None if self._facts.get("has_candidates") else f"{self.listing.place.url}: its source had none"

    def stand_in(self) -> Mapping[str, Any] | None:
        """That of the dataset."""
        return optional(self._dataset, Dataset.stand_in)()


def open_prepared(listing: FileListing, component: Component, registry: Registry) -> PreparedStore:
    """The store at a place, which must be what this grbench would make of the dataset's source with the component's
    options. Only its descriptions are read. Raises DataError where it is another one."""
    url = listing.place.url
    origin, facts = read_origin(listing), _json(listing.place.below(STORE_FILE))
    if origin.dataset != component.name:
        raise DataError(f"{url}: is a store of the dataset {cut(origin.dataset)}, and not of {component.name}")
    asked = dataset_options(registry, component)
    for name in sorted(asked.keys() | origin.options.keys()):
        if asked.get(name) != origin.options.get(name):
            made, wanted = (cut(json.dumps(options.get(name))) for options in (origin.options, asked))
            raise DataError(
                f"{url}: the store was prepared with {name}: {made}, and not with {name}: {wanted}; change "
                f"dataset.{name}, or push a store that was prepared so"
            )
    dataset: Dataset = registry.build("datasets", component)
    digest = store_digest(type(dataset), origin.source, origin.contents)
    if facts.get("digest") != digest:
        raise DataError(
            f"{url}: the store was prepared by another version of the dataset's code or of grbench (digest "
            f"{cut(str(facts.get('digest')))}, here {digest}); prepare and push it again with this version"
        )
    return PreparedStore(listing, origin, facts, dataset)


def read_origin(listing: FileListing) -> Origin:
    """What the store at a place was made of; raises DataError where it does not say so."""
    place = listing.place.below(ORIGIN_FILE)
    if ORIGIN_FILE not in listing:
        raise DataError(
            f"{listing.place.url}: the store has no {ORIGIN_FILE}, so it is not known what it was made of; "
            "`grbench data push` makes stores that can be used in place of their source"
        )
    facts = _json(place)
    kinds = {"dataset": str, "options": dict, "contents": dict, "source": str}
    if any(not isinstance(facts.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{place.url}: is damaged; prepare and push the store again")
    return Origin(**{name: facts[name] for name in kinds})


def _json(place: Place) -> dict[str, Any]:
    try:
        content = json.loads(read_small(place))
    except ValueError as error:
        raise DataError(f"{place.url}: is not JSON; prepare and push the store again") from error
    if not isinstance(content, dict):
        raise DataError(f"{place.url}: is damaged; prepare and push the store again")
    return content
