"""Small pieces are searched together, and the same bytes once; every answer is the one a piece has alone."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.checks.residue.carve import Piece
from fangxin.checks.residue.patterns import Needles, needles_for
from fangxin.checks.residue.scan import scan, walk
from fangxin.checks.residue.together import Together
from fangxin.data.vocabulary import Identity

PHONE, ADDRESS, WORD = "13912345678", "wei.li@example.cn", "weili77"
PEOPLE = [
    (0, Identity("phone_number", PHONE)),
    (0, Identity("email", ADDRESS)),
    (1, Identity("username", WORD)),
    (1, Identity("name", "李伟")),
]
_NEEDLES = needles_for(PEOPLE)
_WHOLE = [
    PHONE.encode(),
    ADDRESS.encode(),
    ADDRESS.upper().encode(),
    ADDRESS.encode("utf-16-le"),
    ADDRESS.encode("utf-16-be"),
    WORD.encode(),
    "李伟".encode(),
    "李伟".encode("gb18030"),
    *(base64.b64encode(b"x" * n + ADDRESS.encode() + b"y" * m) for n in range(3) for m in range(3)),
    *(base64.b64encode(b"x" * n + PHONE.encode()).rstrip(b"=") for n in range(3)),
    "".join(f"\\u{ord(c):04x}" for c in WORD).encode(),
    "".join(f"%{c:02X}" for c in PHONE.encode()).encode(),
    "".join(f"&#{c};" for c in PHONE.encode()).encode(),
    int(PHONE).to_bytes(8, "little"),
    int(PHONE).to_bytes(6, "big"),
    PHONE.encode()[:8] + b"=\n" + PHONE.encode()[8:],
]
_AROUND = [b"", b"<p>", b"{", b"}\n", b'"', b",", b"\n", b"\0", b"\0\0\0", b"x", b"9", b"+", b"=", b"=\n", b"%", b"\\",
           b"&amp;", b"A", b"\x07", b"\x0b\0\0\0", b"lorem ipsum " * 40]  # fmt: skip
_PARTS = st.one_of(
    st.sampled_from(_AROUND),
    st.sampled_from(_WHOLE),
    st.builds(lambda one, cut: one[cut:], st.sampled_from(_WHOLE), st.integers(0, 20)),
    st.builds(lambda one, cut: one[:cut], st.sampled_from(_WHOLE), st.integers(0, 20)),
)
_PIECES = st.lists(st.builds(b"".join, st.lists(_PARTS, max_size=4)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(_PIECES, st.booleans(), st.booleans())
def test_each_piece_has_the_answer_that_it_has_alone(bodies: list[bytes], sqlite: bool, remember: bool) -> None:
    pieces = [Piece("raw", "", body, offset=7 * n, sqlite=sqlite) for n, body in enumerate(bodies)]
    alone = [Together(_NEEDLES).search(one) for one in pieces]
    many = Together(_NEEDLES, remember=remember)
    assert many.each(pieces) == alone
    assert many.each(pieces) == alone  # and so it has when it is asked again


@pytest.mark.parametrize("crowd", [False, True])
def test_whatever_stands_alone_in_a_small_file_is_found_among_many(tmp_path: Path, crowd: bool) -> None:
    others = [(n, Identity("phone_number", f"1380000{n:04d}")) for n in range(2, 1_002)] if crowd else []
    needles: Needles = needles_for([*PEOPLE, *others])
    folder = tmp_path / "home"
    folder.mkdir()
    for n, body in enumerate((PHONE.encode(), ADDRESS.encode(), b'{"x":"' + PHONE.encode() + b'"}\n')):
        (folder / f"{n:04d}-it").write_bytes(body)
    for n in range(150):
        (folder / f"{n:04d}-other").write_bytes(f'<html lang="en">{n:08d}1391234567</html>\n'.encode())
    found = scan(walk([folder]), needles)
    assert {Path(place).name for place in found.totals(0)} == {"0000-it", "0001-it", "0002-it"}
    assert found.coverage.num_rows == 153
    assert not found.not_examinable


def test_a_file_that_was_written_since_is_searched_again_by_whoever_remembers(tmp_path: Path) -> None:
    path, same = tmp_path / "note", tmp_path / "same"
    path.write_bytes(b"<p>nobody</p>\n")
    same.write_bytes(b"<p>" + PHONE.encode() + b"</p>\n")
    together = Together(_NEEDLES, remember=True)
    before = scan(walk([tmp_path]), _NEEDLES, searched=together)
    path.write_bytes(b"<p>" + ADDRESS.encode() + b"</p>\n")
    after = scan(walk([tmp_path]), _NEEDLES, searched=together)
    assert before.totals(0) == {str(same): 1}
    assert after.totals(0) == {str(same): 1, str(path): 1}
    assert before.coverage["bytes_read"].to_pylist() == [14, 19]  # the second look read them again, too
    assert after.coverage["bytes_read"].to_pylist() == [25, 19]
