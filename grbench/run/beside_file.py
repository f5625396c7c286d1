"""A file among a cell's checkpoints, in which the parent says what ran beside the cell until the newest of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grbench.temporary import replacing

BESIDE = "beside"
"""The file's name."""


def keep_beside(folder: Path, facts: Mapping[str, Any]) -> None:
    """Keeps what ran beside the cell until its newest checkpoint. folder: of its checkpoints. Where it cannot be
    written, less is known of the cell's costs."""
    with contextlib.suppress(OSError), replacing(folder / BESIDE) as partial, partial.open("x") as file:
        json.dump(facts, file)


def kept_beside(folder: Path) -> dict[str, Any] | None:
    """What ran beside the attempts until their newest checkpoint; None where that is not known."""
    try:
        facts = json.loads((folder / BESIDE).read_bytes())
        known = type(facts["cells"]) is int and type(facts["threads"]) is int and 0 <= facts["share"] <= 1
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {key: facts[key] for key in ("cells", "share", "threads")} if known else None
