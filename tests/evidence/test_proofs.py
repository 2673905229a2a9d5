"""Known answers of the standards, and: what the ledger proves, the verifier accepts; what is wrong, both refuse."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import make_evidence

from fangxin.checks import verify
from fangxin.data.errors import DoesNotHold
from fangxin.reports.ledger import checkpoint, merkle

VECTOR = json.loads((Path(make_evidence.__file__).with_name("evidence.json")).read_text("utf-8"))

# The eight leaves and roots that Certificate Transparency implementations of RFC 6962 share.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_of(size: int) -> verify.Tree:
    return verify.Tree([merkle.leaf_hash(str(i).encode()) for i in range(size)])


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_rfc_6962(size: int) -> None:
    tree = verify.Tree([merkle.leaf_hash(bytes.fromhex(one)) for one in LEAVES[:size]])
    assert merkle.root(size, lambda level, index: tree.levels[level][index]).hex() == ROOTS[size]
    assert tree.root(size).hex() == ROOTS[size]


def test_the_example_note_of_the_specification_is_accepted_by_both() -> None:
    vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    note = f"This is an example message.\n\n— example.com/foo {signature}\n".encode()
    assert verify.open_note(note, verify.parse_vkey(vkey)) == b"This is an example message.\n"
    assert checkpoint.open_note(note, checkpoint.parse_vkey(vkey)) == b"This is an example message.\n"
    assert str(checkpoint.parse_vkey(vkey)) == vkey


def test_every_byte_of_the_evidence_is_the_one_that_was_fixed_once() -> None:
    assert make_evidence.build() == VECTOR


def test_the_verifier_reads_the_fixed_evidence() -> None:
    vkey = verify.parse_vkey(VECTOR["vkey"])
    signed = verify.parse_checkpoint(VECTOR["checkpoint"].encode(), vkey)
    leaves = [hashlib.sha256(b"\x00" + line.encode()).digest() for line in VECTOR["lines"]]
    assert [leaf.hex() for leaf in leaves] == VECTOR["leaves"]
    assert verify.Tree(leaves).root(3) == signed.root
    index, proof, note = verify.parse_proof(VECTOR["receipt"].encode())
    verify.check_inclusion(leaves[index], index, signed.size, proof, signed.root)
    assert note == VECTOR["checkpoint"].encode()
    key = verify._pem_key(VECTOR["evidence_pub"].encode(), "key")
    assert verify.parse_statement(VECTOR["statement"].encode(), key)["predicate"]["hits"] == 0


@settings(deadline=None)
@given(st.data())
def test_inclusion_proofs_hold_for_their_leaf_and_for_no_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 600))
    index = data.draw(st.integers(0, size - 1))
    tree = tree_of(size)
    proof = merkle.inclusion(index, size, lambda level, at: tree.levels[level][at])
    leaf, root = tree.levels[0][index], tree.root(size)
    verify.check_inclusion(leaf, index, size, proof, root)
    merkle.check_inclusion(leaf, index, size, proof, root)
    for wrong_index, wrong in ((index ^ 1, proof), (index, [*proof, root]), (index, proof[:-1]), (size, proof)):
        if (wrong_index, wrong) == (index, proof) or (wrong_index < size and size == 1):
            continue
        with pytest.raises(verify.Wrong):
            verify.check_inclusion(leaf, wrong_index, size, wrong, root)
        with pytest.raises(DoesNotHold):
            merkle.check_inclusion(leaf, wrong_index, size, wrong, root)


@settings(deadline=None)
@given(st.data())
def test_consistency_proofs_hold_for_the_prefix_and_for_no_other_tree(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 600))
    old = data.draw(st.integers(0, new))
    tree = tree_of(new)
    proof = merkle.consistency(old, new, lambda level, at: tree.levels[level][at])
    for check in (verify.check_consistency, merkle.check_consistency):
        check(old, new, tree.root(old), tree.root(new), proof)
        for roots, hashes in (
            ((merkle.leaf_hash(b"x"), tree.root(new)), proof),
            ((tree.root(old), merkle.leaf_hash(b"x")), proof),
            ((tree.root(old), tree.root(new)), [*proof, merkle.EMPTY]),
            ((tree.root(old), tree.root(new)), proof[:-1]),
        ):
            if (old == 0 and roots[0] == merkle.EMPTY and not hashes) or (
                hashes == proof and roots[0] == tree.root(old) and roots[1] == tree.root(new)
            ):
                continue
            with pytest.raises((verify.Wrong, DoesNotHold)):
                check(old, new, *roots, hashes)


SIZE, ROOT = "3", "p+jqYaX4iUsCDyusZr2bCMsRoDxvpLb5bJC49xYoNv8="
DASH = "—"
MALFORMED = {
    "CRLF": lambda note: note.replace("\n", "\r\n"),
    "no last newline": lambda note: note[:-1],
    "a blank line among the signatures": lambda note: note + "\n",
    "an empty signature line": lambda note: note.replace(f"\n{DASH}", f"\n\n{DASH}"),
    "a control character": lambda note: note.replace("erasure", "era\x01sure"),
    "a hyphen for the dash": lambda note: note.replace(DASH, "-"),
    "an en dash": lambda note: note.replace(DASH, "–"),
    "two spaces": lambda note: note.replace(f"{DASH} ", f"{DASH}  "),
    "a leading zero": lambda note: note.replace(f"\n{SIZE}\n", "\n03\n"),
    "a plus": lambda note: note.replace(f"\n{SIZE}\n", "\n+3\n"),
    "an underscore": lambda note: note.replace(f"\n{SIZE}\n", "\n3_0\n"),
    "full-width digits": lambda note: note.replace(f"\n{SIZE}\n", "\n３\n"),
    "another size": lambda note: note.replace(f"\n{SIZE}\n", "\n4\n"),
    "size 0 with a root": lambda note: note.replace(f"\n{SIZE}\n", "\n0\n"),
    "an extension line": lambda note: note.replace(ROOT, f"{ROOT}\nmore"),
    "another origin": lambda note: note.replace("erasure/2026\n3", "erasure/2027\n3"),
    "spare bits in base64": lambda note: note.replace("Nv8=", "Nv9="),
    "no padding": lambda note: note.replace("Nv8=", "Nv8"),
    "the URL alphabet": lambda note: note.replace("p+jq", "p-jq"),
    "white space in base64": lambda note: note.replace("Nv8=", "Nv8= "),
    "the same key twice": lambda note: note + note[note.index(DASH) :],
    "no signature": lambda note: note[: note.index(DASH)],
    "only a stranger's signature": lambda note: note.replace(f"{DASH} ledger", f"{DASH} stranger"),
    "seventeen signatures": lambda note: note + "".join(f"{DASH} w{i} AAAAAAA=\n" for i in range(16)),
    "too long": lambda note: note + f"{DASH} w {'AAAA' * 20000}\n",
    "nothing": lambda note: "",
    "only newlines": lambda note: "\n\n\n",
}


@pytest.mark.parametrize("wrong", MALFORMED)
def test_a_malformed_checkpoint_is_refused_with_a_message_of_its_own(wrong: str) -> None:
    note = MALFORMED[wrong](VECTOR["checkpoint"]).encode()
    assert note != VECTOR["checkpoint"].encode()
    with pytest.raises(verify.Wrong, match=r"^checkpoint: ."):
        verify.parse_checkpoint(note, verify.parse_vkey(VECTOR["vkey"]))
    with pytest.raises(DoesNotHold):
        checkpoint.parse(note, checkpoint.parse_vkey(VECTOR["vkey"]))


def test_lines_of_unknown_keys_are_ignored_but_one_false_line_of_ours_is_not() -> None:
    vkey, note = verify.parse_vkey(VECTOR["vkey"]), VECTOR["checkpoint"]
    assert verify.parse_checkpoint((note + f"{DASH} witness.example AAAAAAA=\n").encode(), vkey).size == 3
    with pytest.raises(verify.Wrong, match="not UTF-8"):
        verify.parse_checkpoint(note.encode() + b"\xff\n", vkey)
    good = note[note.index(DASH) :]
    false = good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:]
    with pytest.raises(verify.Wrong, match="signature is false"):
        verify.parse_checkpoint((note[: note.index(DASH)] + false).encode(), vkey)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b",
        "a b+00000000+AAAA",
        VECTOR["vkey"].replace("+86b48cdc+", "+86b48cdd+"),
        VECTOR["vkey"].replace("+AYqI", "+BIqI"),
        VECTOR["vkey"][:-4],
        VECTOR["vkey"] + "\n",
        "x" + VECTOR["vkey"],
    ],
)
def test_a_verifier_key_that_is_not_one_is_refused(vkey: str) -> None:
    with pytest.raises(verify.Wrong):
        verify.parse_vkey(vkey)
    with pytest.raises(DoesNotHold):
        checkpoint.parse_vkey(vkey)


@pytest.mark.parametrize(
    ("wrong", "raw"),
    [
        ("a key comes twice", b'{"a":1,"a":1}'),
        ("not an integer", b'{"a":1.0}'),
        ("not an integer", b'{"a":NaN}'),
        ("beyond", b'{"a":9007199254740992}'),
        ("beyond", b'{"a":' + b"9" * 5000 + b"}"),
        ("not canonical", b'{"a": 1}'),
        ("not canonical", b'{"b":1,"a":1}'),
        ("not canonical", b'{"a":1}\n'),
        ("not canonical", b'{"a":"\\u0041"}'),
        ("not canonical", b'{"a":-0}'),
        ("not ASCII", '{"ä":1}'.encode()),
        ("not JSON", b'{"a":"\\ud800"}'),
        ("not JSON", b"\xff"),
        ("not JSON", b""),
        ("not JSON", b'{"a":1}{'),
        ("not JSON", b"[" * 100_000),
    ],
)
def test_json_that_its_writer_would_not_have_written_is_refused(wrong: str, raw: bytes) -> None:
    with pytest.raises(verify.Wrong, match=wrong):
        verify.strict_json(raw, "document")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("@v1", "@v2"),
        lambda text: text.replace("index 1", "index 01"),
        lambda text: text.replace("index 1", "index １"),
        lambda text: text.replace("index 1", "extra !\nindex 1"),
        lambda text: text.replace("S+YH", "S YH"),
        lambda text: text.replace("index 1\n", ""),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: "",
    ],
)
def test_a_malformed_receipt_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(verify.Wrong, match=r"^receipt: "):
        verify.parse_proof(change(VECTOR["receipt"]).encode())


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)), st.sampled_from(["", "note", "proof"])
)
def test_no_input_whatever_gets_anything_but_the_parsers_own_error(junk: bytes, kind: str) -> None:
    vkey = verify.parse_vkey(VECTOR["vkey"])
    key = verify._pem_key(VECTOR["evidence_pub"].encode(), "key")
    whole = {"": b"", "note": VECTOR["checkpoint"].encode(), "proof": VECTOR["receipt"].encode()}[kind]
    at = len(junk) * 7 % (len(whole) + 1)
    raw = whole[:at] + junk + whole[at:]
    for parse in (
        lambda: verify.parse_checkpoint(raw, vkey),
        lambda: verify.parse_proof(raw),
        lambda: verify.strict_json(raw, "document"),
        lambda: verify.parse_statement(raw, key),
        lambda: verify._pem_key(raw, "key"),
        lambda: verify._vkey_file(raw, "key"),
        lambda: list(verify._unzip(raw)),
        lambda: verify._bundle(raw, 3, "bundle"),
    ):
        said = "accepted"
        try:
            parse()
        except verify.Wrong as error:
            said = str(error)
        assert said
