"""Scales and their ticks, and markup that is well formed and has a text for screen readers."""

from xml.etree import ElementTree

import pytest

from launcher.report.svg import Chart, Scale, ScaleWithZero, legend_line, legend_mark


def test_a_scale_is_linear_and_its_ends_lie_inside():
    scale = Scale(0.0, 1.0, 0, 112)
    assert [scale(value) for value in (0, 0.5, 1)] == pytest.approx([6, 56, 106])
    assert scale.ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_logarithmic_scale_has_equal_steps_for_equal_factors():
    scale = Scale(1e6, 1e8, 0, 100, logarithmic=True)
    assert scale(1e7) == pytest.approx(50)
    assert scale.ticks() == pytest.approx([1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8])
    assert len(Scale(17e6, 23e6, 0, 100, logarithmic=True).ticks()) >= 3


def test_counts_have_a_logarithmic_scale_with_a_place_for_zero():
    scale = ScaleWithZero([0, 1e5, 1e7], 0, 400)
    assert 0 < scale(0) < scale.begin < scale(1e5)
    assert scale(1e6) == pytest.approx((scale(1e5) + scale(1e7)) / 2)
    assert scale.ticks()[:2] == [0.0, 1e5]
    without = ScaleWithZero([1e5, 1e7], 0, 400)
    assert without.zero is None
    assert without.ticks()[0] == 1e5
    assert ScaleWithZero([0, 0], 0, 400)(0) == 14


@pytest.mark.parametrize("value", [0.0, 0.9, 17e6])
def test_one_value_has_a_scale(value: float):
    scale = Scale(value, value, 0, 100, logarithmic=value > 1)
    assert scale(value) == pytest.approx(50)
    assert scale.ticks()


def test_texts_are_escaped_and_read_out():
    chart = Chart("c", "<b>title</b>", "a & b", 100)
    chart.text(1, 2, "</svg><script>")
    chart.mark(1, 2, 3, "x < y")
    root = ElementTree.fromstring(chart.markup())
    assert [child.tag for child in root] == ["title", "desc", "text", "polygon"]
    assert root.get("aria-labelledby") == "c-title c-about"
    assert root[0].text == "<b>title</b>"


def test_samples_of_a_legend_are_skipped_by_a_screen_reader():
    for markup in (legend_mark(1), legend_line(2)):
        root = ElementTree.fromstring(markup)
        assert root.get("aria-hidden") == "true"
        assert len(root) == 1
        assert root.find(".//title") is None
