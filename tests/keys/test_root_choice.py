"""An operator chooses root holders by address, as in `fangxin init --root …`; no message repeats one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from keys.root_servers import LABEL, PIN, SoftHsm, softhsm

from fangxin.data.errors import InputError
from fangxin.data.keys.roots.choose import holders
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.kms import Kms
from fangxin.data.keys.roots.openbao import Transit
from fangxin.data.keys.roots.pkcs11 import STATED, Token
from fangxin.data.keys.roots.protocol import CONDITIONS
from fangxin.data.keys.roots.wrapped import WrappedRoot
from fangxin.flows.cli.main import main
from fangxin.reports.render import sentences


@pytest.fixture
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm(tmp_path_factory)


def address(hsm: SoftHsm) -> str:
    return f"pkcs11:token={quote(LABEL)}?module-path={hsm.module}&pin-source=file:{hsm.pin_file}"


def test_every_kind_of_address_gives_its_holder_a_name_of_its_own(tmp_path: Path) -> None:
    made = holders(
        [
            "pkcs11:token=two%20words?module-path=/lib/p.so&pin-source=/pin",
            "bao:https://bao.example:8201/secret/transit?token-file=/token&ca-file=/ca.pem",
            "kms:cn-north-1?window=9",
            "kms:cn-northwest-1",
            "file:/media/usb/root",
        ],
        tmp_path,
        stated=STATED,
    )
    assert [one.name for one in made] == ["pkcs11", "bao", "kms", "kms-2", "file-2"]
    keepers = [one.keeper for one in made if isinstance(one, WrappedRoot)]
    token, transit, kms, other = keepers
    assert isinstance(token, Token)
    assert (token.token, token.module, token.stated) == ("two words", Path("/lib/p.so"), frozenset(STATED))
    assert isinstance(transit, Transit)
    assert (transit.host, transit.port, transit.mount, transit.ca_file) == (
        "bao.example",
        8201,
        "secret/transit",
        Path("/ca.pem"),
    )
    assert isinstance(kms, Kms)
    assert isinstance(other, Kms)
    assert (kms.region, kms.window, other.region) == ("cn-north-1", 9, "cn-northwest-1")
    assert isinstance(made[4], FileRoot)
    assert [one.folder for one in made if isinstance(one, WrappedRoot)] == [
        tmp_path / name for name in ("pkcs11", "bao", "kms", "kms-2")
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("s3cret", "begins with its kind"),
        ("vault:s3cret", "begins with its kind"),
        ("file:", "nothing follows"),
        ("file:relative/s3cret", "absolute path"),
        ("pkcs11:object=x?module-path=/p.so&pin-source=/pin", "token=LABEL"),
        ("pkcs11:token=x?module-path=/p.so&pin-value=s3cret", "does not know"),
        ("pkcs11:token=x?module-path=/p.so", "pin-source is missing"),
        ("bao:https://bao.example/transit?token=s3cret", "does not know"),
        ("bao:https://bao.example/transit?token-file=s3cret", "no absolute path"),
        ("bao:http://bao.example:8200/transit?token-file=/token", "in clear"),
        ("bao:bao.example/transit?token-file=/token", "names its server"),
        ("bao:https://bao.example:s3cret/transit?token-file=/token", "names its server"),
        ("kms:", "nothing follows"),
        ("kms:cn-north-1?window=soon", "number of days"),
        ("kms:cn-north-1?window=3", "7 to 30 days"),
    ],
)
def test_a_wrong_address_is_told_without_repeating_it(wrong: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as told:
        holders([wrong], tmp_path)
    assert "s3cret" not in str(told.value)


def test_a_statement_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown statement"):
        holders([], tmp_path, stated=["trust-me"])


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, chosen, line in (
        ("pkcs11", address(hsm), "fangxin[pkcs11]"),
        ("boto3", "kms:cn-north-1", "fangxin[kms]"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError) as told:
            holders([chosen], tmp_path)[0].claim()
        assert line in told.value.hint


def test_a_home_is_made_with_a_token_and_says_what_it_may_claim(
    hsm: SoftHsm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert main(["init", str(home), "--rehearsal", "--root", address(hsm), "--root", f"file:{tmp_path}/second"]) == 0
    assert "all of its 3 holders" in capsys.readouterr().out
    assert address(hsm) in (home / "fangxin.toml").read_text()
    assert main(["keys", "status", "--home", str(home), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["holders"]] == ["file", "pkcs11", "file-2"]
    assert document["holders"][1] == {
        "name": "pkcs11",
        "effect": "test-only",
        "backup_resistant": "no",
        "conditions": ["software-token"],
    }
    assert main(["keys", "status", "--home", str(home)]) == 0
    assert CONDITIONS["software-token"][0] in capsys.readouterr().out
    assert not [path for path in home.rglob("*") if path.is_file() and PIN.encode() in path.read_bytes()]
    (tmp_path / "second").rename(tmp_path / "lost")
    assert main(["keys", "status", "--home", str(home)]) != 0


def test_a_software_token_is_for_rehearsals_only(
    hsm: SoftHsm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "real"), "--root", address(hsm)]) == 4
    assert "rehearsal" in capsys.readouterr().err
    assert not (tmp_path / "real").exists()
    assert main(["init", str(tmp_path / "home"), "--rehearsal", "--root", address(hsm)]) == 0
    toml = tmp_path / "home" / "fangxin.toml"
    toml.write_text(toml.read_text().replace("rehearsal = true", "rehearsal = false"))
    assert main(["keys", "status", "--home", str(tmp_path / "home")]) == 4


def test_an_init_that_a_second_holder_stopped_can_be_repeated(hsm: SoftHsm, tmp_path: Path) -> None:
    home, token = tmp_path / "home", tmp_path / "token"
    away = f"bao:http://127.0.0.1:9/transit?token-file={token}"
    token.write_text("s.none")
    assert main(["init", str(home), "--rehearsal", "--root", address(hsm), "--root", away]) == 5
    assert not (home / "fangxin.toml").exists()
    assert main(["init", str(home), "--rehearsal", "--root", address(hsm)]) == 0
    assert main(["keys", "status", "--home", str(home)]) == 0
    (holder,) = holders([address(hsm)], home / "keys")
    assert isinstance(holder, WrappedRoot)
    assert len(list(holder.keeper.named(holder._prefix()))) == 1


def test_the_page_on_root_holders_has_every_sentence_that_a_claim_can_print() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "root-holders.md").read_text("utf-8")
    assert [english for english, _ in CONDITIONS.values() if english not in page] == []


def test_a_certificate_prints_the_conditions_word_for_word() -> None:
    assert sentences("not-aws, cancellable") == [CONDITIONS["not-aws"], CONDITIONS["cancellable"]]
    assert sentences("<b>") == [("<b>", "<b>")]
    assert sentences("") == []
