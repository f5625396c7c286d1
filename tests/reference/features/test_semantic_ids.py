"""Semantic ids as item features, against hand-made codes."""

import pytest
import torch
from worlds import featured

from grbench.errors import SuiteError
from grbench.types import Codes
from grbench_reference.codes.random_k import as_tensors
from grbench_reference.features.fusion import FusionOptions, ItemFeatureOptions, item_tower
from grbench_reference.features.semantic_ids import SemanticIds
from grbench_reference.tokenizers.ids import Ids

# Items 1 .. 6; 5 and 6 have no training event. Codes 0 and 0 are as good as any other.
TABLE = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [2, 0]])
CODES = Codes(TABLE, (3, 3))


def part_of(tmp_path, codes=CODES, **options):
    return SemanticIds(codes, featured(tmp_path).item_counts() > 0, width=2, **options)


def test_codes_padding_and_unknown_are_rows_of_their_own(tmp_path):
    part = part_of(tmp_path).eval()
    rows = part.rows(torch.arange(7))
    assert rows[0].tolist() == [0, 0]
    assert rows[1, 0] == rows[2, 0] == rows[5, 0] != rows[3, 0]
    assert rows[3, 0] == rows[4, 0]
    assert rows[1, 1] == rows[3, 1] == rows[6, 1] != rows[2, 1]
    assert set(rows[1:, 0].tolist()).isdisjoint(rows[1:, 1].tolist()), "code 0 of level 0 is not code 0 of level 1"
    assert rows[6, 0] == part.unknown[0], "code 2 of level 0 is of a cold item only"
    assert rows[5, 1] == part.unknown[1]
    vectors = part(torch.arange(7))
    assert vectors.shape == (7, 4)
    assert (vectors[0] == 0).all()
    assert (vectors[6, :2] == 0).all()
    assert (vectors[6, 2:] == vectors[1, 2:]).all()


def test_random_k_replaces_codes_in_training_only(tmp_path):
    neighbours = (torch.tensor([[0, 1], [1, 0], [2, 2]]), torch.tensor([[0, 0], [1, 1], [2, 2]]))
    part = part_of(tmp_path, Codes(TABLE, (3, 3), tensors=as_tensors(neighbours)))
    plain = part.eval().rows(torch.arange(7))
    torch.manual_seed(0)
    drawn = torch.stack([part.train().rows(torch.arange(7)) for _ in range(50)])
    assert set(drawn[:, 1, 0].tolist()) == {int(plain[1, 0]), int(plain[3, 0])}
    assert (drawn[:, :, 1] == plain[:, 1]).all()
    assert (drawn[:, 0] == 0).all()
    assert torch.equal(part.eval().rows(torch.arange(7)), plain)


def test_codes_that_are_the_item_itself_are_refused(tmp_path):
    data = featured(tmp_path)
    with pytest.raises(SuiteError, match=r"encoder.semantic_ids: .*rq_kmeans or codes_file"):
        item_tower(data, width=2, semantic_ids=Ids().fit(data))


def test_a_tower_has_them_as_fields(tmp_path):
    items = ItemFeatureOptions(item_features=False, embeddings="none")
    fusion = FusionOptions(id_width=0, field_width=3)
    tower = item_tower(featured(tmp_path), items, fusion, width=4, semantic_ids=CODES)
    assert tower.widths == [6]
    assert tower(torch.tensor([[1, 0]])).shape == (1, 2, 4)
