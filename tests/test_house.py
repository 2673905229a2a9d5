"""The house stands: light doors, a whole wheel, a lock without addresses, one test command, and no skipped test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("data", "checks", "reports", "flows")
FOLDERS = (*ROOMS, "tests", "docs", ".ci")
HEAVY = {"prefect", "great_expectations", "pandas", "duckdb", "pyarrow", "numpy", "boto3", "botocore", "pkcs11"}


def files(*suffixes: str) -> list[Path]:
    """Files of the repository by suffix; what programs leave behind is not ours."""
    tops = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [path for path in [*tops, *below] if path.name.endswith(suffixes) and "__pycache__" not in path.parts]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


@cache
def parsed(path: Path) -> ast.Module:
    """A file's tree, which nobody changes; four tests walk over all of them."""
    return ast.parse(path.read_text("utf-8"))


# ------------------------------------------------------------ what an import costs


@pytest.mark.parametrize("name", ["fangxin", "fangxin.flows.cli.main"])
def test_the_door_and_the_command_line_load_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; print(*sorted({HEAVY!r} & {{m.partition('.')[0] for m in sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_heavy_libraries_are_named_at_the_top_of_no_module_that_flows_import_early() -> None:
    allowed = {(f"flows/{one}.py", "prefect") for one in ("runner", "deployed", "bell")}  # themselves imported late
    found = set()
    for path in files(".py"):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(ROOMS):
            continue
        for node in parsed(path).body:
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {(name, top) for m in modules if (top := m.partition(".")[0]) in HEAVY - {"pyarrow", "numpy"}}
    assert found - allowed == set()


# ------------------------------------------------------------ what is shipped


def test_a_wheel_holds_every_room_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("fangxin-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = [path.relative_to(ROOT).as_posix() for path in files("")]
    assert inside == {"fangxin/__init__.py", "fangxin/py.typed"} | {
        f"fangxin/{name}" for name in here if name.startswith(tuple(f"{room}/" for room in ROOMS))
    }
    for needed in (
        "data/laws/pipl.yaml",
        "data/sample/lecard.yml",
        "reports/schemas/certificate.json",
        "reports/templates/certificate.html.j2",
        "reports/templates/package/verify.sh",
        "checks/verify.py",
    ):
        assert f"fangxin/{needed}" in inside


def test_the_lock_pins_everything_by_hash_and_names_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert re.search(r"https?://|--index-url|--extra-index-url|--find-links|\bgit\+", lock) is None
    entries = [one for one in re.split(r"\n(?=\S)", lock.strip()) if not one.startswith("#")]
    assert len(entries) > 100
    assert [one.splitlines()[0] for one in entries if "==" not in one or "--hash=sha256:" not in one] == []


def test_what_we_import_is_declared_and_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [one for some in project["optional-dependencies"].values() for one in some]
    declared = {re.split(r"[<>=\[]", one)[0] for one in [*project["dependencies"], *extras]}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    assert declared <= locked
    package = {"yaml": "pyyaml", "ahocorasick_rs": "ahocorasick-rs"}
    package |= {"stdnum": "python-stdnum", "pkcs11": "python-pkcs11"}
    imported = set()
    for path in files(".py"):
        if path.relative_to(ROOT).parts[0] not in ROOMS:
            continue
        for node in ast.walk(parsed(path)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {m.partition(".")[0] for m in modules}
    foreign = imported - set(sys.stdlib_module_names) - {"fangxin"}
    assert {package.get(one, one.replace("_", "-")) for one in foreign} <= declared


# ------------------------------------------------------------ how it is tested


def test_ci_and_readme_name_the_same_test_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert lines[-1] == "export CI=true; exec make test"
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    shy = {"skip", "skipif", "xfail", "importorskip", "skipTest", "expectedFailure", "SkipTest"}
    owners = {"pytest", "pytest.mark", "mark", "self", "unittest"}
    needs_root = Path("tests/medium/test_image.py")  # it mounts; where CI is set it fails instead of skipping
    found = []
    for path in files(".py"):
        if path.relative_to(ROOT).parts[0] != "tests" or path.relative_to(ROOT) == needs_root:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and node.attr in shy and ast.unparse(node.value) in owners:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.attr}")
    assert found == []


def test_every_test_has_something_to_say() -> None:
    """A test without an assertion passes whatever happens."""
    silent = []
    for path in files(".py"):
        if path.relative_to(ROOT).parts[0] != "tests":
            continue
        tree = parsed(path)
        functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        for name, node in functions.items():
            if name.startswith("test_") and not _asserts(node):
                helpers = {
                    c.func.id for c in ast.walk(node) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)
                }
                helpers |= {
                    c.func.attr for c in ast.walk(node) if isinstance(c, ast.Call) and isinstance(c.func, ast.Attribute)
                }
                if not any(_asserts(functions[h]) for h in helpers & functions.keys()):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert silent == []


def _asserts(node: ast.AST) -> bool:
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr == "raises"]
    return bool(calls) or any(isinstance(n, ast.Assert) for n in ast.walk(node))


# ------------------------------------------------------------ what files must not hold


def test_no_file_holds_a_path_of_somebody_s_machine_or_a_registry() -> None:
    machine = re.compile(r"(?<![\w/.])/(?:home|Users|root|work)/\w|[A-Z]:\\Users|pypi\.org/simple")
    found = []
    for path in files(".py", ".md", ".toml", ".yml", ".yaml", ".json", ".j2", ".sh", ".lock", "Makefile", "run"):
        if path == Path(__file__).resolve():
            continue
        text = path.read_text("utf-8")
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in machine.finditer(text)]
    assert found == []


def test_the_links_in_the_door_lead_to_the_rooms() -> None:
    links = {path.name: path.readlink().as_posix() for path in (ROOT / "fangxin").iterdir() if path.is_symlink()}
    assert links == {room: f"../{room}" for room in ROOMS}


def test_every_room_holds_packages_only() -> None:
    folders = {path.parent for path in files(".py") if path.relative_to(ROOT).parts[0] in ROOMS}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
