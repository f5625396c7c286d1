"""Plans added up by hand, and what is said of one that does not fit."""

from __future__ import annotations

from grbench.run.memory_plan import MemoryPlan, memory_text

GIB = 1 << 30


def a_plan(**changed) -> MemoryPlan:
    described = {
        "method": "m",
        "batch_size": 1000,
        "on_gpu": False,
        "device": {"tables": GIB, "gradients": GIB, "optimizer state": 2 * GIB, "activations": 5 * GIB, "index": GIB},
        "host": {"process": GIB, "loader": 2 * GIB},
        "growing": {"activations": 4 * GIB, "loader": 2 * GIB},
    } | changed
    return MemoryPlan(**described)


def test_training_and_search_are_not_at_the_same_time() -> None:
    assert a_plan().ram_bytes == (3 + 1 + 8) * GIB
    searching = a_plan(device={"tables": GIB, "optimizer state": 2 * GIB, "activations": 3 * GIB, "index": 5 * GIB})
    assert searching.ram_bytes == (3 + 1 + 2 + 5) * GIB


def test_on_a_gpu_the_model_takes_none_of_the_ram() -> None:
    plan = a_plan(on_gpu=True)
    assert (plan.ram_bytes, plan.gpu_bytes) == (3 * GIB, 9 * GIB)
    assert plan.refusal(4 * GIB, 10 * GIB) is None
    assert "needs about 9.0 GiB of GPU memory, this machine has 8.0 GiB" in str(plan.refusal(4 * GIB, 8 * GIB))
    assert "needs about 3.0 GiB of RAM" in str(plan.refusal(2 * GIB, 80 * GIB))


def test_what_cannot_fit_is_named_and_a_batch_that_would() -> None:
    """12 GiB, of which 4 of the activations and 2 of the loader grow: 9 GiB leave half of them, less a tenth."""
    plan = a_plan()
    assert plan.refusal(12 * GIB, None) is None
    assert plan.refusal(9 * GIB, None) == (
        "m: needs about 12.0 GiB of RAM, this machine has 9.0 GiB; the largest part is activations, 5.0 GiB; "
        "training.batch_size 450 in place of 1,000 would fit"
    )
    assert "would fit" not in str(plan.refusal(5 * GIB, None))


def test_what_is_mapped_is_shown_and_never_a_reason() -> None:
    plan = a_plan(mapped=50 * GIB)
    assert plan.ram_bytes == 12 * GIB
    assert plan.refusal(12 * GIB, None) is None
    said = memory_text([plan])
    assert said.splitlines()[2].split()[:5] == ["m", "12.0", "GiB", "50.0", "GiB"]
    assert "no cell is refused for them" in said


def test_plans_as_printed_and_as_sent() -> None:
    plans = [a_plan(), MemoryPlan("other", 0, False, unknown="its tokenizer has to be fitted first")]
    said = memory_text(plans)
    assert "12.0 GiB" in said
    assert "activations 5.0 GiB, loader 2.0 GiB, optimizer state 2.0 GiB" in said
    assert "not known: its tokenizer has to be fitted first" in said
    assert [MemoryPlan.from_json(plan.to_json()) for plan in plans] == plans
