"""Names beside points: none hides a point or another name, and none leaves the plot."""

from hypothesis import given
from hypothesis import strategies as st

from phaselaw.report.labels import LONGEST, Box, fitting, place, short, width_of

WITHIN = Box(40, 20, 390, 260)

spots = st.tuples(st.floats(45, 385), st.floats(25, 255), st.text("abcgpt2-/ _", min_size=1, max_size=40))


@given(st.lists(spots, min_size=1, max_size=14))
def test_names_that_are_placed_overlap_nothing(points) -> None:
    dots = [Box(x - 5, y - 5, x + 5, y + 5) for x, y, _ in points]
    boxes = [placed.box for placed in place(points, WITHIN) if placed is not None]
    assert all(box.inside(WITHIN) for box in boxes)
    for at, box in enumerate(boxes):
        assert not any(box.overlap(other) for other in [*boxes[at + 1 :], *dots])


def test_twelve_models_in_a_heap_are_all_named() -> None:
    heap = [(300 + at % 3, 100 + at // 3, f"family/model-number-{at}") for at in range(12)]
    placed = place(heap, WITHIN)
    assert None not in placed
    assert sum(one.led for one in placed if one is not None) >= 6  # a line leads to those that stand far away


def test_a_folder_is_left_out_of_a_name_and_a_long_one_is_cut() -> None:
    assert short("models/gpt2-5m") == "gpt2-5m"
    assert len(short("x" * 100)) == LONGEST
    assert short("a\u202eb") == "a<U+202E>b"


@given(st.text(max_size=60), st.floats(20, 400))
def test_a_text_cut_to_a_width_has_it(text: str, width: float) -> None:
    assert width_of(fitting(text, width, 10.5)) <= max(width, width_of("…"))
