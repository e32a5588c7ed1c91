"""The repository's files and what their syntax trees say."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | FunctionNode


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path  #: relative to the repository's root

    def __str__(self) -> str:
        return self.path.as_posix()

    @cached_property
    def text(self) -> str:
        """What the file holds."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text, filename=str(self))

    @property
    def package(self) -> str:
        """The dotted name of the package that holds the module."""
        return ".".join(self.path.parent.parts)

    @property
    def imports(self) -> set[str]:
        """Dotted names of all that is imported anywhere in the file, inside functions and by a literal name too.

        ``from a.b import c`` gives ``a.b`` if ``c`` is something inside a module of this repository, else ``a.b.c``.
        """
        return {name for node in ast.walk(self.tree) for name in self._imported_by(node)}

    def _imported_by(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = self.package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield module if _is_own_module(module) and not _is_own_module(full) else full
        elif isinstance(node, ast.Call) and called_name(node) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            yield from (
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )

    @property
    def functions(self) -> Iterator[FunctionNode]:
        """All functions and methods, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, FunctionNode))

    @property
    def defined(self) -> set[str]:
        """Names that the module itself defines: functions, classes and what is assigned."""
        targets = (target for node in self.tree.body if isinstance(node, ast.Assign) for target in node.targets)
        return {node.name for node in self.tree.body if isinstance(node, ast.ClassDef | FunctionNode)} | {
            target.id for target in targets if isinstance(target, ast.Name)
        }

    @property
    def calls(self) -> Iterator[ast.Call]:
        """All calls."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def public_nodes(self) -> Iterator[tuple[str, Documented]]:
        """Yield the module, its public functions and classes and their public methods, each with its dotted name."""
        yield str(self), self.tree
        yield from _public_members(self.tree, prefix="")


def python_files(*folders: str) -> list[Source]:
    """Return every Python file below the folders, in order; a rule that checks no file would pass for nothing."""
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert found, f"no Python file below {', '.join(folders)}: this rule checks nothing, so mend its folders"
    return [_source(path.relative_to(ROOT)) for path in found]


def committed_files() -> list[Path]:
    """Return what is, or would be, committed, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [Path(name) for name in os.fsdecode(listed.stdout).split("\0") if name]
    else:  # an unpacked archive: everything outside hidden folders, and the hidden folder that is ours
        every = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        paths = [path for path in every if path.parts[0] == ".ci" or not path.parts[0].startswith(".")]
    return sorted(path for path in paths if (ROOT / path).is_file())


def called_name(call: ast.Call) -> str:
    """Return the dotted name that is called, as it is written, or "" for anything but a dotted name."""
    return ast.unparse(call.func) if isinstance(call.func, ast.Name | ast.Attribute) else ""


def is_in(module: str, package: str) -> bool:
    """Tell whether ``module`` is ``package`` or inside it.

    >>> is_in("ray.serve", "ray"), is_in("rayon", "ray")
    (True, False)
    """
    return module == package or module.startswith(f"{package}.")


@cache
def _source(path: Path) -> Source:
    return Source(path)  # kept, so that each file is parsed once and not by every rule


def _is_own_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _public_members(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Documented]]:
    for node in parent.body:
        if isinstance(node, ast.ClassDef | FunctionNode) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public_members(node, f"{prefix}{node.name}.")
