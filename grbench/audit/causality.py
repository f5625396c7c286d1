"""Does an encoder's state know events that come after it?

Shapes: R rows, T history length, D width, P positions with a target, K_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.audit.later_events import LaterEvents, later_events
from grbench.data.split import Split
from grbench.errors import PluginError
from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Decoder, Embedder, Encoder, LookAhead, optional
from grbench.registry.attributes import history_length
from grbench.results.audit_file import AuditResult
from grbench.types import Batch

ROUNDING = 1e-4
"""Of the largest number of a state: what equal computations may differ by."""
ROUNDING_OF_LAYOUT = 0.02
"""The same where one row is padded otherwise, so that sums are in another order."""
SPREAD = 0.1
"""Of what is added to all parameters, so that what starts at zero and is yet to be learnt, such as a gate, shows."""
DEPENDENCE: dict[LookAhead, str] = {
    "next_action": "the action of the next event",
    "events_left": "how many events of the history follow (or how much padding stands before it)",
}


class Causality(Audit):
    """Changes all events after a place, for each place of some histories: items, actions, times, targets. The states up
    to it must stay as they are, and so must the code logits of targets up to it. What they may depend on of what comes
    after them is what the encoder declares (`Encoder.looks_ahead`)."""

    name = "causality"
    meaning = (
        "A state depends on events after it, so that training shows the encoder its targets. Mask what comes later; if "
        "it is the next action or the number of events left, and meant, declare it by the encoder's looks_ahead(). A "
        "state that depends on padding looks alike: `grbench check` tells it apart (padding_has_no_influence)."
    )

    def run(self, method: AuditedMethod) -> AuditResult:
        """See Audit."""
        return self.of(method.untrained_encoder(), method.split)

    def of(self, encoder: nn.Module, split: Split) -> AuditResult:
        """Of an encoder that is made for the split, whose parameters are changed."""
        stir(encoder)
        declared = _declared(encoder)
        data = split.training
        if optional(encoder, Encoder.predicts_first_event)():
            data = data.with_first_events()
        events = later_events(data, history_length(encoder))
        actions = len(data.catalogue.actions)
        items = torch.from_numpy(split.candidates[:8].copy())
        with evaluating(encoder):
            views = _Outputs(encoder, items)
            plain, again, changed = views.of(events.batch), views.of(events.batch), views.of(events.changed)
            if plain.differs(again, events) is not None:
                return self.unknown("the encoder gives other states for the same batch, in evaluation mode")
            if (what := plain.differs(changed, events)) is not None:
                return self.leak(f"{what} changes with the events that come after it")
            seen: set[LookAhead] = set()
            if plain.next_action_matters(views.of(events.with_other_next_actions(actions))):
                seen.add("next_action")
            if plain.length_matters(views.of(events.shortened()), events):
                seen.add("events_left")
        if undeclared := [DEPENDENCE[name] for name in get_args(LookAhead) if name in seen - declared]:
            return self.leak(f"states depend on {' and on '.join(undeclared)}, which the encoder does not declare")
        places = int(events.unchanged.sum())
        depends = [DEPENDENCE[name] for name in get_args(LookAhead) if name in seen]
        also = f"; as declared, they depend on {' and on '.join(depends)}" if depends else ""
        chosen = _action_name(data.catalogue.actions, split.test.next_action)
        if "next_action" in seen:
            also += f" (at test the protocol's, {chosen})"
        same = f"{places:,} states are the same whatever comes after them" if places else "a batch has one event a user"
        return self.passed(f"{same}{also}")


class States:
    """What an encoder gives for a batch. states: [R, T or T + 1, D], None for one that is no Embedder; logits: of each
    level [P, K_l], none for one that is no Decoder; positions: [R, T + 1] bool, which have a target."""

    def __init__(self, states: Tensor | None, logits: Sequence[Tensor], positions: Tensor) -> None:
        self.states, self.logits, self.positions = states, logits, positions

    def differs(self, other: States, events: LaterEvents) -> str | None:
        """What differs where it must not; None where nothing does."""
        if self.states is not None and other.states is not None:
            length = events.number.shape[1]
            own, theirs = self.states[:, -length:], other.states[:, -length:]
            if apart(own, theirs, events.unchanged) > ROUNDING:
                return "the state after an event"
            if self.states.shape[1] > length and apart(self.states[:, 0], other.states[:, 0]) > ROUNDING:
                return "the state of the user's token"
        taught, first = events.taught[self.positions], events.first_changed[self.positions]
        for level, (own, theirs) in enumerate(zip(self.logits, other.logits, strict=True)):
            places = taught if level else taught | first  # a later level knows the codes of its own target
            if apart(own, theirs, places) > ROUNDING:
                return f"the prediction of a code of level {level + 1}"
        return None

    def next_action_matters(self, other: States) -> bool:
        """Whether anything differs."""
        return any(apart(own, theirs) > ROUNDING for own, theirs in zip(self._all(), other._all(), strict=True))

    def length_matters(self, shortened: States, events: LaterEvents) -> bool:
        """Whether the state after the newest of the events that are kept differs where the others are gone."""
        if self.states is None or shortened.states is None:
            return False
        newest = (events.number > 0) & (events.number == events.kept.unsqueeze(1))
        rows = events.kept > 0
        own, theirs = self.states[:, -newest.shape[1] :][newest], shortened.states[:, -1][rows]
        return apart(own, theirs) > ROUNDING_OF_LAYOUT

    def _all(self) -> list[Tensor]:
        return [*([] if self.states is None else [self.states]), *self.logits]


class _Outputs:
    """Asks an encoder for all that it gives of a batch. items: [N], with which histories are embedded."""

    def __init__(self, encoder: nn.Module, items: Tensor) -> None:
        self._encoder, self._items = encoder, items

    def of(self, batch: Batch) -> States:
        """Of the whole batch at once, so that two batches of equal layout are computed alike."""
        encoder = self._encoder
        states = encoder.embed(batch, self._items)[0] if isinstance(encoder, Embedder) else None
        logits = encoder.code_logits(batch) if isinstance(encoder, Decoder) else ()
        return States(states, logits, batch.all_targets > 0)


def apart(one: Tensor, other: Tensor, places: Tensor | None = None) -> float:
    """The largest difference, as a share of the largest number. Numbers that are not finite must be the same."""
    one, other = (each if places is None else each[places] for each in (one, other))
    if not one.numel():
        return 0.0
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return torch.inf
    one, other = one.masked_fill(~finite, 0), other.masked_fill(~finite, 0)
    largest = max(float(one.abs().max()), float(other.abs().max()), 1e-9)
    return float((one - other).abs().max()) / largest


@torch.no_grad()
def stir(encoder: nn.Module) -> None:
    """Adds noise to all parameters. The first row of a table that is zero stays so: it is that of padding."""
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        noise = SPREAD * torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1 and len(parameter) and not parameter[0].any():
            noise[0] = 0
        parameter.add_(noise.to(parameter.dtype))


def _declared(encoder: nn.Module) -> set[LookAhead]:
    declared = set(optional(encoder, Encoder.looks_ahead)())
    if unknown := declared - set(get_args(LookAhead)):
        known = ", ".join(get_args(LookAhead))
        raise PluginError(f"encoder {type(encoder).__name__}: looks_ahead() names {min(unknown)!r}; there are {known}")
    return declared


def _action_name(names: Sequence[str], token: int) -> str:
    return names[token - 2] if 2 <= token < len(names) + 2 else "none"
