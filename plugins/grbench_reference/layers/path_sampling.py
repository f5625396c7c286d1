"""Complete paths drawn from a decoder, one for each of several samples, among the codes that candidates have.

With replacement, each sample is drawn code by code. Without, the paths of the largest perturbed log probabilities are
taken: adding Gumbel noise to the log probabilities of all paths draws distinct paths one after another, and stochastic
beam search (arXiv 1903.06059) finds the largest without scoring all paths, as a child's noise is drawn given that the
largest among its siblings is its parent's.

Shapes: B users, G samples of each, L levels, W beams of a user, C children of a user's beams.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from grbench.interfaces import Decoder
from grbench.types import Batch
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.kernels.keyed_noise import gumbel, uniform
from grbench_reference.layers.trie_decoding import Expansion, expand, maxima, root


@dataclass(frozen=True)
class SampledPaths:
    """G paths of each user, in the order in which they were drawn; all of them are paths of the trie.

    Only without replacement, where the trie has fewer than G paths, are some missing.

    codes: [B, G, L] int64, 0 where missing; prefixes: [B, G, L], the trie's number of the prefix of each length, so
    that two samples of a user share their first codes where these are equal; -1 = missing; items: [B, G], an item with
    these codes, the first in the order of the pool; 0 = missing; log_probabilities: [B, G, L] float32, of each code
    among those that may follow its prefix, logits divided by the temperature; 0 where missing. A path's is their sum.
    """

    codes: Tensor
    prefixes: Tensor
    items: Tensor
    log_probabilities: Tensor

    @property
    def leaves(self) -> Tensor:
        """[B, G], the trie's numbers of the paths; -1 = missing."""
        return self.prefixes[:, :, -1]


@torch.no_grad()
def sample_paths(
    decoder: Decoder,
    batch: Batch,
    trie: PrefixTrie,
    count: int,
    *,
    seed: int,
    replacement: bool = True,
    temperature: float = 1.0,
) -> SampledPaths:
    """Draws `count` paths a user from the probabilities of codes among those that may follow their prefix.

    The noise is a function of the seed and the user, so a user's sample depends neither on the batch nor on its order.
    Another seed gives other samples: of a training step, `seed_of(seed, step)`.
    """
    draw = _draw_with_replacement if replacement else _draw_without_replacement
    expansion = root(decoder, batch, trie, tree=True)
    shares: list[Tensor] = []
    prefixes: list[Tensor] = []
    for level in range(trie.levels):
        local = expansion.shares(temperature)
        columns, carried = draw(expansion, local, batch.users, count, seed)
        beams = expansion.keep(columns, *carried)
        # What was drawn before stands in the order of its beams: the columns' parents bring it into theirs.
        parents = expansion.parents.gather(1, columns)
        shares = [each.gather(1, parents) for each in shares] + [local.gather(1, columns)]
        prefixes = [each.gather(1, parents) for each in prefixes] + [beams.prefixes]
        if level + 1 < trie.levels:
            expansion = expand(decoder, beams, trie, tree=True)
    return _complete(trie, beams.paths, torch.stack(prefixes, 2), torch.stack(shares, 2), count)


def path_log_probabilities(
    decoder: Decoder, batch: Batch, trie: PrefixTrie, prefixes: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """prefixes [B, G, L], as of `SampledPaths` -> [B, G, L] float32, the log probability of each code of these paths
    among those that may follow its prefix, with gradients; 0 where a path is missing."""
    missing, numbers = prefixes < 0, prefixes.clamp(min=0)
    users, count, levels = prefixes.shape
    rows = torch.arange(users, device=prefixes.device).repeat_interleave(count)
    logits, state = decoder.start(batch)
    found = []
    for level in range(levels):
        if level == 0:
            shares = (logits[:, trie.codes[0]].float() / temperature).log_softmax(1)
            found.append(shares.gather(1, numbers[:, :, 0]))
            continue
        logits, state = decoder.step(trie.codes[level - 1][numbers[:, :, level - 1]].reshape(-1), state.select(rows))
        rows = torch.arange(users * count, device=rows.device)
        _, children = trie.children(level, numbers[:, :, level - 1].reshape(-1, 1))
        possible = logits.gather(1, trie.codes[level][children.clamp(min=0)]).float() / temperature
        total = possible.masked_fill(children < 0, -torch.inf).logsumexp(1)
        own = logits.gather(1, trie.codes[level][numbers[:, :, level].reshape(-1, 1)]).float()[:, 0] / temperature
        found.append((own - total).view(users, count))
    return torch.stack(found, 2).masked_fill(missing, 0)


def perturbed(expansion: Expansion, shares: Tensor, users: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The noise of stochastic beam search: shares [B, C] of the children, the users' rows [B] -> (perturbed log
    probabilities of the children, float64 [B, C], the largest below each beam that beam's own, their log probabilities
    without noise). Both are carried by beams. A child without probability has -inf.

    Section 4.1 and appendix B.3 of the paper: each child's noise is drawn freely, then all are shifted so that their
    largest is their parent's, in a form that loses no digits.
    """
    parents = expansion.parents
    if expansion.carried:
        above, without = (each.gather(1, parents) for each in expansion.carried)
        plain = shares.double() + without
    else:
        plain = shares.double()
    noisy = plain + gumbel(seed, users.unsqueeze(1), expansion.level, expansion.prefixes)
    if not expansion.carried:
        return noisy, plain
    gap = noisy - maxima(noisy, parents, expansion.beams).gather(1, parents)  # 0 for the largest, below 0 else
    shift = above - noisy + (-gap.expm1()).log()
    shifted = above - shift.clamp(min=0) - torch.log1p((-shift.abs()).exp())
    return torch.where(noisy == -torch.inf, -torch.inf, shifted), plain


def _draw_without_replacement(
    expansion: Expansion, shares: Tensor, users: Tensor, count: int, seed: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    noisy, plain = perturbed(expansion, shares, users, seed)
    values, columns = noisy.topk(min(count, noisy.shape[1]), dim=1)
    return columns, (values, plain.gather(1, columns))


def _draw_with_replacement(
    expansion: Expansion, shares: Tensor, users: Tensor, count: int, seed: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One child of each beam, at the root `count` of its only beam, by the inverse of cumulative probabilities."""
    sample = torch.arange(count, device=shares.device)
    point = uniform(seed, users.unsqueeze(1), expansion.level, sample)
    sums = shares.double().exp().cumsum(1)
    # Beams' children follow one another, so that a beam's share of the sums ends with its last child.
    owners = sample[: expansion.beams].expand(len(shares), -1).contiguous()
    last = torch.searchsorted(expansion.parents.contiguous(), owners, right=True) - 1
    high = sums.gather(1, last)
    low = pad(high, (1, 0))[:, :-1]
    drawn = torch.minimum(low + (high - low) * point, high.nextafter(low))
    return torch.searchsorted(sums, drawn, right=True).clamp(max=sums.shape[1] - 1), ()


def _complete(trie: PrefixTrie, paths: Tensor, prefixes: Tensor, shares: Tensor, count: int) -> SampledPaths:
    """paths, prefixes, shares: [B, W, L], W at most `count`; those that were not found get -1, 0 or no item."""
    short = count - prefixes.shape[1]
    prefixes = pad(prefixes, (0, 0, 0, short), value=-1)
    missing = (prefixes[:, :, -1:] < 0).expand_as(prefixes)
    prefixes = prefixes.masked_fill(missing, -1)
    return SampledPaths(
        codes=pad(paths, (0, 0, 0, short)).masked_fill(missing, 0),
        prefixes=prefixes,
        items=trie.first_items(prefixes[:, :, -1]),
        log_probabilities=pad(shares, (0, 0, 0, short)).masked_fill(missing, 0),
    )
