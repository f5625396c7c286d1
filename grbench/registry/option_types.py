"""Types of options that many plug-ins have; each says its limits, which are checked before anything runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
"""How many of something that must be there."""

Natural = Annotated[int, Field(ge=0)]
"""How many of something that may be missing."""

Share = Annotated[float, Field(ge=0, lt=1)]
"""A part of a whole, or a chance."""
