"""Extensions that tests compile: against the package as it is installed, and against the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

import grpclb_core.native
from support.compiled import built_once, load, run_python

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "embed_cython"
PACKAGE = Path(grpclb_core.native.__file__).parent

# The package as imported, and where its declarations are: beside it in a wheel, under ext/ in a checkout.
IMPORTED = PACKAGE.parents[1]
DECLARATIONS = IMPORTED if (PACKAGE / "picker.pxd").exists() else ROOT / "ext"


def stage(tree: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("ext", "grpclb_core"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run_python("setup.py", "-q", "build_py", "--build-lib", "site", cwd=tree, site=tree)
    for module in PACKAGE.glob("*.so"):
        shutil.copy(module, tree / "site" / "grpclb_core" / "native")


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree after `setup.py build_py`: its generated C, and in `site/` what a wheel would hold."""
    return built_once(tmp_path_factory, "staged", stage)


@pytest.fixture(scope="session")
def example(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedding example, built as its README says against the installed package."""

    def build(folder: Path) -> None:
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("build", "*.c", "*.so"))
        run_python("setup.py", "-q", "build_ext", "--inplace", cwd=folder, site=staged / "site")

    return built_once(tmp_path_factory, "example", build)


def build_probe(folder: Path) -> None:
    shutil.copy(Path(__file__).with_name("probe.pyx"), folder)
    recipe = (EXAMPLE / "setup.py").read_text()
    (folder / "setup.py").write_text(recipe.replace("driver", "probe"))
    run_python(
        "setup.py", "-q", "build_ext", "--inplace",
        cwd=folder, site=IMPORTED, GRPCLB_DECLARATIONS=str(DECLARATIONS),
    )  # fmt: skip


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """`probe.pyx`, built by the example's own recipe against the package that is imported here."""
    return load("probe", built_once(tmp_path_factory, "probe", build_probe))
