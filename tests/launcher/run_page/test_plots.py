"""A plot can be read without eyes: its description and its tables have the ends and the extremes of each curve."""

from xml.etree import ElementTree

from launcher.run_page.plots import Curve, plot, short
from launcher.text import number, share

UPDATES = [(float(n), 10.0 / n) for n in range(1, 31)]


def test_the_description_and_the_rows_have_ends_and_extremes():
    made = plot("p", "Loss", [Curve("a", 0, UPDATES), Curve("b", 1, [(1.0, 0.5), (2.0, 0.75), (3.0, 0.25)])], number)
    root = ElementTree.fromstring(made.svg)
    assert root.get("aria-labelledby") == "p-title p-about"
    assert root[0].text == "Loss"
    assert root[1].text == (
        "2 curves against update. a: from 10.000 at update 1 to 0.3333 at update 30; lowest 0.3333 at update 30, "
        "highest 10.000 at update 1; b: from 0.5 at update 1 to 0.25 at update 3; lowest 0.25 at update 3, highest 0.75 at update 2."
    )
    assert made.rows[1].highest == ("0.75", "2")
    assert made.table[0] == ["1", "10.000", "0.5"]
    assert made.table[-1] == ["30", "0.3333", ""], "a curve that ended before has an empty cell"


def test_curves_differ_by_colour_and_by_dashes():
    made = plot("p", "t", [Curve(str(n), n, UPDATES) for n in range(8)], number)
    styles = [line.get("class") for line in ElementTree.fromstring(made.svg).iter("polyline")]
    assert styles == [f"curve s{n} d{n % 4}" for n in range(8)]


def test_only_a_loss_gets_a_logarithmic_axis():
    steep = [Curve("a", 0, [(1.0, 1000.0), (2.0, 1.0)])]
    assert "logarithmic" in plot("p", "t", steep, number, may_be_logarithmic=True).svg
    assert "logarithmic" not in plot("p", "t", steep, number).svg
    assert "logarithmic" not in plot("p", "t", [Curve("a", 0, [(1.0, 0.0), (2.0, 100.0)])], number, may_be_logarithmic=True).svg


def test_one_point_and_equal_values_can_be_drawn():
    for points in ([(5.0, 2.0)], [(5.0, 0.0), (6.0, 0.0)], [(1.0, 1e299), (2.0, -1e299)]):
        svg = plot("p", "t", [Curve("a", 0, points)], number).svg
        assert "nan" not in svg
        assert "inf" not in svg


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_neighbouring_ticks_differ_and_a_curve_of_zeros_lies_on_its_axis():
    close = plot("p", "t", [Curve("a", 0, [(1.0, 3.36121), (2.0, 3.36145), (3.0, 3.36132)])], number)
    ticks = [text for text in texts(close.svg) if text.startswith("3.36")]
    assert len(ticks) == len(set(ticks)) > 2
    zeros = [Curve("a", 0, [(float(n), 0.0) for n in range(5)])]
    assert not [text for text in texts(plot("p", "t", zeros, share).svg) if text.startswith("-")]
    assert "1.0 %" in texts(plot("p", "t", zeros, share).svg)


def test_texts_are_escaped_and_shares_have_shares_at_the_axis():
    made = plot("p", "<script>", [Curve("</svg><script>", 0, [(1.0, 0.25), (2.0, 0.75)])], share)
    assert "<script" not in made.svg
    assert ">40.0 %<" in made.svg


def test_ticks_are_short():
    assert [short(value) for value in (0.00015, 3e-7, 25_000, 2_000_000, 0)] == ["0.00015", "3e-07", "25k", "2M", "0"]
