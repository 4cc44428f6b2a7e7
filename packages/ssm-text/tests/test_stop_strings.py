from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssm_text.stop_strings import StopStrings

letters = st.text("ab\n", max_size=6)


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Ends before the stop string that is complete first, the longest of those."""
    for end in range(1, len(text) + 1):
        lengths = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if lengths:
            return text[: end - max(lengths)], True
    return text, False


@given(st.lists(letters, max_size=6), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_any_pieces_give_the_text_before_the_stop(pieces, stops):
    filter, given = StopStrings(stops), ""
    for i, piece in enumerate(pieces):
        given += filter.push(piece)
        before = "".join(pieces[: i + 1])
        wanted, found = expected(before, stops)
        assert filter.found == found
        if found:
            assert given == wanted
        else:
            held = wanted.removeprefix(given)
            assert given + held == wanted
            # held back is what may become a stop string, and no more
            ends = [before[k:] for k in range(len(before))]
            longest = max((len(e) for e in ends if any(s.startswith(e) for s in stops)), default=0)
            assert len(held) == longest
    assert given + filter.finish() == expected("".join(pieces), stops)[0]
