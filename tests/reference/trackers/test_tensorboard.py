"""Event files, read back with TensorBoard's own reader."""

from pathlib import Path

import pytest
from tracked import a_cell, a_record, beside, needs

from grbench.interfaces import Tracker
from grbench_reference.trackers.tensorboard import TensorBoard

needs("torch.utils.tensorboard", "tensorboard")


def read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = {path.parent for path in folder.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return run.name, events


def scalars(events):
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def text(events, tag):
    return events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_whole_cell(tmp_path):
    tracker, folder = TensorBoard(), beside(tmp_path, "tensorboard")
    assert isinstance(tracker, Tracker)
    tracker.check()
    tracker.start(folder, a_cell())
    for step in (1, 2, 3):
        tracker.log(step, {"loss": 1 / 4**step, "epoch": 1.0})
    tracker.log(3, {"ndcg@10": 0.5, "epoch": 1.0})
    name, events = read(folder)
    assert name == "dense-seed-0"
    assert scalars(events)["loss"] == [(1, 0.25), (2, 0.0625), (3, 0.015625)]  # before the cell has ended
    tracker.finish(a_record())
    _, events = read(folder)
    logged = scalars(events)
    assert logged["ndcg@10"] == [(3, 0.5)]
    assert logged["test/ndcg@10"] == [(3, 0.25)]
    assert logged["cost/train_seconds"] == [(3, 1.5)]
    assert "encoder.width: 8" in text(events, "options")
    assert str(tmp_path / "0123456789abcdef.parquet") in text(events, "options")
    assert text(events, "outcome").strip() == "ok"
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    contents = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    options = HParamsPluginData.FromString(contents).session_start_info.hparams
    assert options["encoder"].string_value == "hstu"
    assert options["optimizer.lr"].number_value == pytest.approx(0.003)


def test_a_cell_goes_on_from_a_checkpoint_with_each_step_once(tmp_path):
    folder = beside(tmp_path, "tensorboard")
    first = TensorBoard(every_steps=1)
    first.start(folder, a_cell())
    for step in (1, 2, 3, 4):
        first.log(step, {"loss": float(step)})
    again = TensorBoard(every_steps=1)  # the first was killed after a checkpoint at step 2
    again.resume(folder, a_cell(), 2)
    for step in (3, 4, 5):
        again.log(step, {"loss": 10.0 * step})
    again.finish(a_record())
    _, events = read(folder)
    assert scalars(events)["loss"] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


def test_a_cell_that_starts_again_leaves_nothing_of_before(tmp_path):
    folder = beside(tmp_path, "tensorboard")
    for value in (1.0, 2.0):
        tracker = TensorBoard()
        tracker.start(folder, a_cell())
        tracker.log(1, {"loss": value})
    assert scalars(read(folder)[1])["loss"] == [(1, 2.0)]
    tracker.resume(beside(tmp_path / "elsewhere", "tensorboard"), a_cell(), 5)  # what was there before is gone
    tracker.log(6, {"loss": 3.0})
    assert scalars(read(tmp_path / "elsewhere")[1])["loss"] == [(6, 3.0)]
