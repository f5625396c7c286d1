"""The item vectors of a trained cell, and codes made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from code_worlds import ITEMS, codes_of, decoder, world
from worlds import made_with

from grbench.errors import PluginError, RunError
from grbench.interfaces import Tracker
from grbench.registry.discovery import Registry
from grbench.run.backends.child_process import ChildMessages
from grbench.run.reporter import Reporter
from grbench.suite.method import bind_method
from grbench_reference.tokenizers.rq_kmeans import RQKMeans
from grbench_reference.trackers.item_vectors import ItemVectors


@pytest.mark.parametrize("block", [4, 100])
def test_codes_of_a_trained_cells_vectors(tmp_path, block):
    data = world(tmp_path)
    encoder = decoder(data, codes_of(data), dropout=0.5).train()
    tracker = ItemVectors(encode_block=block)
    assert isinstance(tracker, Tracker)
    assert isinstance(tracker, Tracker)
    tracker.start(tmp_path, {})
    tracker.log(1, {})
    Reporter(ChildMessages(None), [tracker]).keep(encoder, 9)
    tracker.finish({})
    vectors = np.load(tmp_path / "vectors.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (10, 8))
    assert (vectors[0] == 0).all()
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(vectors[1:]), encoder.eval().embed_items(ITEMS))
    codes = made_with(RQKMeans, source="file", vectors=str(tmp_path / "vectors.npy"), sizes=[3, 3]).fit(data)
    assert codes.report["colliding_items"] == 0


def test_a_folder_that_cannot_be_written(tmp_path):
    data = world(tmp_path)
    tracker = ItemVectors()
    tracker.start(tmp_path / "absent", {})
    with pytest.raises(RunError, match=r"vectors\.npy: the tracker item_vectors cannot write here"):
        Reporter(ChildMessages(None), [tracker]).keep(decoder(data, codes_of(data)), 9)


def test_an_encoder_without_item_vectors_is_refused_before_anything_is_read(monkeypatch):
    registry = Registry.load()
    monkeypatch.delattr("grbench_reference.encoders.sid_decoder.SIDDecoder.embed_items")
    keys = {"tokenizer": "ids", "encoder": "sid_decoder", "retriever": "beam", "optimizer": None}
    with pytest.raises(PluginError, match=r"tracker 'item_vectors' needs Embedder .* 'sid_decoder' does not implement"):
        bind_method(registry, "m", keys | {"trackers": ["item_vectors"]}, "x", [])
