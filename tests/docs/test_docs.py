"""What the documentation shows works: every snippet runs, every page is reached, every link leads somewhere."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?```(?P<language>[^\n]*)\n(?P<body>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
REASONS = ("it needs a cluster", "it needs GPUs", "it needs the hub", "it installs packages", "it asks questions")
"""Why a snippet may be left out."""

COMMANDS = {"omniconv": "-m omniconv", "python": "", "torchrun": "-m torch.distributed.run --standalone"}
"""What the programs of the snippets are here: this Python; torchrun takes a free port, for tests run in parallel."""

DOCUMENTED = (
    "omniconv",
    "omniconv.data",
    "omniconv.engines",
    "omniconv.estimators",
    "omniconv.export",
    "omniconv.groups",
    "omniconv.kernels",
    "omniconv.models",
    "omniconv.nn",
    "omniconv.plots",
    "omniconv.recurrence",
    "omniconv.supports",
    "omniconv.symmetry",
    "omniconv.testing",
    "omniconv.training",
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins in, why it is not run, and what it shall print."""

    language: str
    text: str
    line: int
    reason: str | None
    expected: str | None


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page; a block of text right after another one is what that one prints."""
    found = list(FENCE.finditer(page))
    for match, following in zip(found, [*found[1:], None], strict=False):
        adjacent = following is not None and not page[match.end() : following.start()].strip()
        printed = following["body"] if following is not None and adjacent and following["language"] == "text" else None
        line = page.count("\n", 0, match.start("body"))
        yield Block(match["language"], match["body"], line, match["reason"], printed)


def check_printed(block: Block, printed: str) -> None:
    """Raise unless a block printed what the page says; `...` stands for anything."""
    if block.expected is not None:
        checker, options = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert checker.check_output(block.expected, printed, options), f"printed:\n{printed}\nnot:\n{block.expected}"


def run_python(page: Path, block: Block, names: dict[str, object]) -> None:
    """Run a block in the namespace of its page; line numbers of errors are those of the page."""
    printed = io.StringIO()
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    check_printed(block, printed.getvalue())


def run_shell(block: Block, programs: Path) -> None:
    """Run a block as a shell script that ends at the first error."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(["bash", "-euc", block.text], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    assert not re.search("Traceback|Warning", done.stderr), done.stderr
    check_printed(block, done.stdout)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs that snippets call."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, options in COMMANDS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_run(page: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        if block.reason is None and block.language == "python":
            run_python(page, block, names)
        if block.reason is None and block.language == "bash":
            run_shell(block, programs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_has_a_reason(page: Path) -> None:
    text = page.read_text()
    told = [block for block in blocks(text) if block.reason is not None]
    assert len(told) == text.count("<!-- not run"), "a comment `not run: REASON` must stand right above a block"
    assert {block.reason for block in told} <= set(REASONS)
    assert {block.language for block in told} <= {"bash", "python"}


def test_the_test_of_snippets_sees_mistakes(programs: Path) -> None:
    page = "```python\nprint(1)\n```\n\n```text\n2\n```\n\n<!-- not run: it needs the hub -->\n```bash\nexit 3\n```\n"
    first, _, last = blocks(page)
    with pytest.raises(AssertionError, match="printed"):
        run_python(Path("page"), first, {})
    assert last.reason == "it needs the hub"
    with pytest.raises(AssertionError, match="exit 3"):
        run_shell(last, programs)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as HTML, built with every warning an error."""
    out = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "trees")]
    done = subprocess.run([*command, str(DOCS), str(out / "html")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_every_page_is_built(built: Path) -> None:
    assert all((built / f"{page.stem}.html").is_file() for page in PAGES)


@pytest.mark.parametrize("module", DOCUMENTED)
def test_the_reference_has_every_public_name(built: Path, module: str) -> None:
    html = (built / "reference.html").read_text()
    top = set(import_module("omniconv").__all__)
    homes = {name: "omniconv" if name in top else module for name in import_module(module).__all__}
    assert [name for name, home in homes.items() if f'id="{home}.{name}"' not in html] == []


def test_the_tables_of_options_are_full(built: Path) -> None:
    pages = {"training": "omniconv.training.recipe:Recipe", "reference": "omniconv.cli.fit:Fit"}
    for page, place in pages.items():
        module, _, name = place.partition(":")
        html = (built / f"{page}.html").read_text()
        for field in getattr(import_module(module), name).__dataclass_fields__:
            spelled = f"--{field.replace('_', '-')}" if name == "Fit" else field
            assert f'<span class="pre">{spelled}</span>' in html, field


def test_the_table_of_presets_is_full(built: Path) -> None:
    html = (built / "published.html").read_text()
    names = [name for name in import_module("omniconv").list_models() if name.count("_") > 2 or "ckcnn" in name]
    assert len(names) > 50
    assert [name for name in names if f'<span class="pre">{name}</span>' not in html] == []


def test_every_page_is_in_a_toctree() -> None:
    listed = {name for text in map(Path.read_text, PAGES) for name in toctree(text)}
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES}
    assert pages - {"index"} == {name for name in listed if "*" not in name}
    assert all(list(DOCS.glob(f"{name}.md")) for name in listed)


def toctree(text: str) -> list[str]:
    """The pages that the tables of contents of a page list."""
    bodies = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for body in bodies for line in body.splitlines() if line and not line.startswith(":")]


LINKS = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda value: str(getattr(value, "stem", value)))
def test_links_lead_somewhere(built: Path, page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    other = DOCS / name if name else page
    assert other in PAGES, f"{page.name} links to {target}, which is no page"
    assert not anchor or f'id="{anchor}"' in (built / f"{other.stem}.html").read_text(), f"{target} has no such part"


def test_install_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(extras)


def test_there_is_a_shell() -> None:
    assert shutil.which("bash"), "the snippets for the shell need bash"
