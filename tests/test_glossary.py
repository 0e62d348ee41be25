"""Every abbreviation that the book shows is explained in its glossary."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BOOK, PACKAGE = REPOSITORY / "book", REPOSITORY / "hepaper"
WORD = re.compile(r"(?<!\w)[A-Za-z]*[A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9]*(?!\w)")  # two capitals or more
NO_WORDS = re.compile(r"#[0-9A-Fa-f]{6}|[oOsvPXdpD^<>*]+|\w*Error|DejaVu .*")  # colours, markers, errors, fonts
SHOWN = ("dropdown", "admonition", "glossary", "figure", "note", "tip", "warning")  # fences that hold prose

ALLOWED = {
    # units
    "MB", "GB", "GiB", "MiB",
    # products and formats that are names and nothing else
    "SimpleITK", "PyRadiomics", "PyTorch", "NumPy", "SciPy", "NiiVue", "WebGL", "ITK", "GitHub", "GitLab", "macOS",
    "HTML", "URL", "JSON", "YAML", "SVG", "ZIP", "CUDA", "SLURM", "OK", "README", "nnUNetTrainer", "DeepMedX", "MedCalc",
    # letters of panels (A to H), of a formula (ABC/2) and of Python (not a number), no words
    "AB", "ABC", "ABCD", "ABCDEFG", "ABCDEFGH", "DG", "NaN",
    # parts of identifiers that stand in prose: a table's column, a series of simulated readers
    "SIM",
}  # fmt: skip


def prose(text: str) -> str:
    """The words of a page of MyST: without code, equations, addresses and roles, with a substitution's own texts."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        found = re.match(r"^\s*([`:]{3,})\s*(\{([\w-]+)\})?(.*)$", line)
        if fence:
            fence = "" if found and found[1] == fence and not found[2] else fence
        elif found and found[1][0] == "`" and (found[2] or found[4].strip()) and found[3] not in SHOWN:
            fence = found[1]
        elif found:
            lines.append(found[4])
        elif not re.match(r"^:(label|figclass|class|file|sorted|width|name):", line):
            lines.append(line)
    joined = "\n".join(lines)
    joined = re.sub(
        r"\{\{(.*?)\}\}", lambda m: " ".join(re.findall(r"'((?:[^'\\]|\\.)*)'", m[1])), joined, flags=re.DOTALL
    )
    for gone in (
        r"<!--.*?-->",
        r"\$\$.*?\$\$",
        r"\$[^$\n]+\$",
        r"\{[\w:-]+\}`[^`]*`",
        r"`[^`]*`",
        r"https?://\S+",
        r"\]\([^)]*\)",
    ):
        joined = re.sub(gone, " ", joined, flags=re.DOTALL)
    return joined


def texts(code: str) -> Iterator[str]:
    """The texts of a module but its docstrings."""
    tree = ast.parse(code)
    hidden = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.value


def terms() -> set[str]:
    """What the glossary explains, and the words of which its terms are made (ITK-SNAP: ITK, SNAP)."""
    found = set()
    for block in re.findall(
        r"^```\{glossary\}\n(.*?)^```", (BOOK / "glossary.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in block.splitlines():
            if line and not line.startswith((" ", ":")):
                found |= {line.strip(), *re.findall(r"\w+", line)}
    return found


def unknown(text: str, known: set[str]) -> set[str]:
    """Abbreviations in ``text`` that nobody explains; a plural's s does not count."""
    words = set(WORD.findall(text))
    return {word for word in words if word not in known and word.removesuffix("s") not in known}


PAGES = sorted(BOOK.glob("*.md"))
LISTS = sorted(PACKAGE.glob("audit/*.yml"))  # their texts are cells of tables
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
TABLES = sorted({*PACKAGE.glob("tables/*.py"), *PACKAGE.glob("figures/*.py"), *PACKAGE.rglob("*tables*.py")})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages(path: Path) -> None:
    """Oracle: the glossary, and the list of what needs no entry."""
    assert unknown(prose(path.read_text("utf-8")), terms() | ALLOWED) == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks(path: Path) -> None:
    """Oracle: the same; markdown cells, and the captions in the cells of code."""
    shown = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        shown += [prose(source)] if cell["cell_type"] == "markdown" else texts(source)
    assert unknown("\n".join(shown), terms() | ALLOWED) == set()


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_headers_of_tables_and_labels_of_figures(path: Path) -> None:
    """Oracle: the same; all texts of the modules that make tables and figures but colours and names of Python."""
    shown = [text for text in texts(path.read_text("utf-8")) if not NO_WORDS.fullmatch(text)]
    assert unknown("\n".join(shown), terms() | ALLOWED) == set()


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_cells_of_the_audits_tables(path: Path) -> None:
    """Oracle: the same; all of the files but addresses and code."""
    assert unknown(prose(path.read_text("utf-8")), terms() | ALLOWED) == set()


def test_the_scan_sees_abbreviations() -> None:
    """Oracle: by hand: what is prose, what is code; plurals; a word of one capital is no abbreviation."""
    page = (
        "---\nmyst:\n  substitutions:\n    a: \"{{ 'the NRI' if r.ABC else '' }}\"\n---\n# One\n\nAUCs and Dice, `FID`, $KID$, "
        "{cite}`XYZ2020`, [KAN](http://A.B/CD) and {{ 'ECE' if p.QQ else '' }}.\n\n```python\nHU = 1\n```\n\n```{dropdown} Answer\n"
        "sICH\n```\n\n````{dropdown} Answer\nICC\n\n```python\nMRI = 1\n```\n````\n\nROC\n"
    )
    assert unknown(prose(page), set()) == {"NRI", "AUCs", "KAN", "ECE", "sICH", "ICC", "ROC"}
    assert unknown("AUCs, AUC", {"AUC"}) == set()
    assert list(texts('"""A DOC."""\nx = "the CI"\n')) == ["the CI"]


def test_the_glossary_has_the_words_of_the_field() -> None:
    """Oracle: the list in the order for the book; each entry says something, and none says it twice."""
    text = (BOOK / "glossary.md").read_text("utf-8")
    asked = """HE NHE sICH NCCT HU ROI AUC ROC ICC FID KID IS EMA DDPM DDIM KAN ViT CAM TRIPOD CLAIM STARD PPV NPV IVH mRS
        Dice IoU HD95 BCa FDR Holm"""
    assert set(asked.split()) <= terms()
    entries = [line for line in text.splitlines() if re.match(r"^[\w+-]+( [\w-]+)*$", line)]
    assert len(entries) == len(set(entries)) > 80


def test_every_allowed_word_is_none_that_the_glossary_has() -> None:
    """Oracle: one place for each word."""
    assert not ALLOWED & {term for term in terms() if term != "ITK"}
