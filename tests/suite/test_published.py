"""Published figures in a suite: read as they are, or refused with their key; part of no identity."""

from __future__ import annotations

import pytest
from demo_plugins import SUITE, demo_registry, write_suite
from demo_suite import failure

from grbench.errors import SuiteError
from grbench.suite.json_schema import suite_schema
from grbench.suite.suite import load_suite

pytestmark = pytest.mark.usefixtures("demo_training")

METHODS = """
  a: {encoder: dense, loss: contrastive}
  b: {extends: a, encoder: {width: 64}}
  c: {extends: a, grid: {encoder.width: [8, 16]}}
"""
TEXT = SUITE.format(methods=METHODS)
FIGURE = "metric: hits@10, value: .0648, source: arXiv 2305.05065 table 1, same_protocol: true"
READ = {"metric": "hits@10", "value": 0.0648, "source": "arXiv 2305.05065 table 1", "same_protocol": True}


def test_figures_are_of_their_method_alone(tmp_path):
    text = f"{TEXT}published: {{a: [{{{FIGURE}}}], 'c[width=8]': [{{{FIGURE}, seeds: 3, standard_error: 0}}]}}\n"
    published = load_suite(write_suite(tmp_path, text)).published
    assert published == {"a": (READ,), "c[width=8]": ({**READ, "seeds": 3, "standard_error": 0.0},)}


def test_a_source_may_be_shared(tmp_path):
    text = TEXT.replace("[hits@10]", "[hits@10, hits@20]") + (
        f"published:\n  a:\n    - &paper {{{FIGURE}}}\n    - {{<<: *paper, metric: hits@20, value: 1}}\n"
    )
    suite = load_suite(write_suite(tmp_path, text))
    assert suite.published["a"] == (READ, {**READ, "metric": "hits@20", "value": 1.0})
    assert len(suite.cells(demo_registry())) == 8


def test_figures_are_part_of_no_cell(tmp_path):
    plain = load_suite(write_suite(tmp_path, TEXT)).cells(demo_registry())
    assert (
        load_suite(write_suite(tmp_path, f"{TEXT}published: {{a: [{{{FIGURE}}}]}}\n")).cells(demo_registry()) == plain
    )


@pytest.mark.parametrize(
    ("published", "said"),
    [
        ("[]", "published: should be a mapping of methods"),
        ("{d: [{}]}", "published: there is no method 'd'"),
        ("{c: [{}]}", "published: there is no method 'c'; there are: a, b, c[width=16], c[width=8]"),
        ("{a: {}}", "published.a: should be a list of figures"),
        ("{a: []}", "published.a: should be a list of figures"),
        ("{a: [.05]}", "published.a.0: should be a mapping"),
        (f"{{a: [{{{FIGURE}}}, {{{FIGURE}}}]}}", "published.a.1.metric: there is a figure of hits@10 already"),
        (f"{{a: [{{{FIGURE}, sead: 3}}]}}", "published.a.0.sead: unknown option; did you mean"),
        (
            f"{{a: [{{{FIGURE.replace('hits@10', 'hits@5')}}}]}}",
            "published.a.0.metric: this suite has no metric 'hits@5'",
        ),
        (f"{{a: [{{{FIGURE.replace('.0648', '.inf')}}}]}}", "published.a.0.value: should be a finite number"),
        (f"{{a: [{{{FIGURE.replace('.0648', 'high')}}}]}}", "published.a.0.value: should be a valid number"),
        ("{a: [{metric: hits@10, value: 1, same_protocol: true}]}", "published.a.0.source: must be given"),
        ("{a: [{metric: hits@10, value: 1, source: '', same_protocol: true}]}", "published.a.0.source: "),
        ("{a: [{metric: hits@10, value: 1, source: x}]}", "published.a.0.same_protocol: must be given"),
        (
            "{a: [{metric: hits@10, value: 1, source: x, same_protocol: false}]}",
            "published.a.0.differs: must be given, because same_protocol is false",
        ),
        (
            f"{{a: [{{{FIGURE}, interval: [.07, .08]}}]}}",
            "published.a.0.interval: should be [low, high] with the value",
        ),
        (f"{{a: [{{{FIGURE}, interval: [.07]}}]}}", "published.a.0.interval"),
        (
            f"{{a: [{{{FIGURE}, interval: [0, 1], standard_error: .1}}]}}",
            "published.a.0.standard_error: the interval is",
        ),
        (f"{{a: [{{{FIGURE}, standard_error: -1}}]}}", "published.a.0.standard_error: should be greater"),
        (f"{{a: [{{{FIGURE}, seeds: 0}}]}}", "published.a.0.seeds: should be greater"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(tmp_path, published, said):
    assert failure(tmp_path, text=f"{TEXT}published: {published}\n").startswith(said)


def test_what_the_command_line_changes_is_said_of_the_figures(tmp_path):
    path = write_suite(tmp_path, f"{TEXT}published: {{a: [{{{FIGURE}}}], b: [{{{FIGURE}, differs: code}}]}}\n")
    published = load_suite(path, ["methods.b.encoder.width=8", "seeds=[3]", "dataset.path=x"]).published
    assert published["a"] == (READ,)
    assert published["b"] == ({**READ, "differs": "code; here changed by --set methods.b.encoder.width=8"},)
    changed = load_suite(path, ["methods.a.encoder.width=8", "defaults.training.epochs=1"]).published
    assert "methods.a.encoder.width=8, defaults.training.epochs=1" in changed["b"][0]["differs"]
    other_data = load_suite(path, ["dataset.size=5"]).published["a"][0]
    assert (other_data["same_protocol"], other_data["differs"]) == (False, "here changed by --set dataset.size=5")


def test_other_metrics_on_the_command_line_leave_figures_out(tmp_path):
    path = write_suite(tmp_path, f"{TEXT}published: {{a: [{{{FIGURE}}}]}}\n")
    assert len(load_suite(path, ["metrics=[hits@5]"]).cells(demo_registry())) == 8
    with pytest.raises(SuiteError, match="this suite has no metric"):
        load_suite(write_suite(tmp_path, path.read_text().replace("[hits@10]", "[hits@5]"))).cells(demo_registry())


def test_the_schema_knows_figures(monkeypatch):
    from demo_plugins import TrainingOptions

    monkeypatch.setattr("grbench.suite.json_schema.training_options", lambda: TrainingOptions)
    figure = suite_schema(demo_registry())["properties"]["published"]["additionalProperties"]["items"]
    assert set(figure["required"]) == {"metric", "value", "source", "same_protocol"}
    assert figure["additionalProperties"] is False
    assert figure["properties"]["value"]["description"] == "the figure, as it was published."


@pytest.mark.parametrize("name", ['"a\\e[2J"', '"a\\u202eb"', '"a\\0b"'])
def test_names_that_a_terminal_would_obey_are_refused(tmp_path, name):
    message = failure(tmp_path, text=SUITE.format(methods=f"{{{name}: {{encoder: dense}}}}"))
    assert message.isprintable()
