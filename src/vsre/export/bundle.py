"""One self-contained Python file from a package's own modules: some classes and all that they need, nothing else.

A model on the hub brings its code along. That code is not a second copy kept by hand: it is cut out of the modules
that run here, statement by statement, following names from the classes asked for. Whatever else a module does (reading
checkpoints, writing data) stays behind, with the packages that it would need.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from vsre.errors import VsreError


@dataclass(frozen=True)
class _Import:
    """What a name stands for: `name` of `module`, or the module itself if `name` is None."""

    module: str
    name: str | None
    bound: str

    def what(self) -> str:
        whole = self.name or self.module
        return whole if self.bound == whole else f"{whole} as {self.bound}"

    def line(self) -> str:
        return f"import {self.what()}" if self.name is None else f"from {self.module} import {self.what()}"


@dataclass
class _Statement:
    """A top-level definition with the comment above it and the string below it."""

    first: int
    last: int
    needs: set[str]


@dataclass
class _Module:
    name: str
    lines: list[str]
    imports: dict[str, _Import] = field(default_factory=dict)
    defined: dict[str, _Statement] = field(default_factory=dict)
    actions: list[int] = field(default_factory=list)
    """Lines of statements that do something instead of defining a name."""

    def text(self, statement: _Statement) -> str:
        return "\n".join(self.lines[statement.first - 1 : statement.last])


def bundle(classes: Sequence[type], *, package: str, docstring: str) -> str:
    """The source of one module that defines `classes` as `package` does and imports nothing from it.

    Raises VsreError if a needed module does more than define names, imports the package inside a function, or binds
    a name that another needed module binds too: none of this can be carried over without changing what it means.
    """
    modules: dict[str, _Module] = {}
    taken: dict[str, tuple[_Module, _Statement]] = {}  # in the order in which they must run
    imports: dict[str, _Import] = {}
    open_names: set[tuple[str, str]] = set()

    def take(module_name: str, name: str) -> None:
        if module_name not in modules:
            modules[module_name] = _read(module_name, package)
        module = modules[module_name]
        if name in module.imports:
            found = module.imports[name]
            if not _inside(found.module, package):
                if imports.setdefault(name, found) != found:
                    raise VsreError(f"{module.name}: {name} is {found.line()!r}, elsewhere {imports[name].line()!r}.")
                return
            if found.name is None or found.bound != found.name:
                raise VsreError(f"{module.name}: {found.line()!r} cannot be bundled. Import the names themselves.")
            take(found.module, found.name)
            return
        if name not in module.defined:
            if hasattr(builtins, name):
                return
            raise VsreError(f"{module.name}: {name} is neither defined nor imported there, so it cannot be bundled.")
        if module.actions:
            raise VsreError(
                f"{module.name}, line {module.actions[0]}: a statement that does more than define a name would be "
                "lost in a bundle. Move it to a module that the model does not need."
            )
        statement = module.defined[name]
        if name in taken:
            if taken[name][1] is not statement:
                raise VsreError(f"{name} is defined in {module.name} and in {taken[name][0].name}. Rename one.")
            return
        if (module_name, name) in open_names:  # already being taken: functions may call each other
            return
        open_names.add((module_name, name))
        for needed in sorted(statement.needs):
            take(module_name, needed)
        taken[name] = (module, statement)

    for each in classes:
        take(each.__module__, each.__name__)
    clash = sorted(taken.keys() & imports.keys())
    if clash:
        raise VsreError(f"{', '.join(clash)}: imported by one module and defined by another. Rename one.")
    definitions: dict[int, str] = {}
    for module, statement in taken.values():  # a statement that binds two names comes once
        definitions.setdefault(id(statement), module.text(statement))
    head = [f'"""{docstring}"""', "from __future__ import annotations", "\n".join(_import_lines(imports))]
    source = "\n\n".join([*head, "\n\n\n".join(definitions.values())]) + "\n"
    ast.parse(source)
    return source


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _import_lines(imports: dict[str, _Import]) -> Iterator[str]:
    yield from sorted(found.line() for found in imports.values() if found.name is None)
    named = sorted((found for found in imports.values() if found.name), key=lambda found: (found.module, found.bound))
    for module, group in groupby(named, key=lambda found: found.module):
        yield f"from {module} import {', '.join(found.what() for found in group)}"


def _read(name: str, package: str) -> _Module:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise VsreError(f"{name}: its source cannot be found, so it cannot be bundled.")
    source = Path(spec.origin).read_text("utf-8")
    module, last = _Module(name, source.splitlines()), None
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            _note_import(node, module)
            last = None
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            if last is not None:
                last.last = node.end_lineno or node.lineno
        elif names := _binds(node):
            last = _statement(node, module, package)
            module.defined |= dict.fromkeys(names, last)
        else:
            module.actions.append(node.lineno)
            last = None
    return module


def _note_import(node: ast.Import | ast.ImportFrom, module: _Module) -> None:
    if isinstance(node, ast.ImportFrom):
        if node.level or node.module is None:
            raise VsreError(f"{module.name}, line {node.lineno}: a relative import cannot be bundled. Name the module.")
        if node.module != "__future__":
            found = (_Import(node.module, a.name, a.asname or a.name) for a in node.names)
            module.imports |= {i.bound: i for i in found}
        return
    for alias in node.names:
        # "import a.b" binds a, "import a.b as c" binds c to a.b
        whole = alias.name if alias.asname else alias.name.split(".")[0]
        bound = alias.asname or whole
        module.imports[bound] = _Import(alias.name if alias.asname else whole, None, bound)


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return names if len(names) == len(targets) else []


def _statement(node: ast.stmt, module: _Module, package: str) -> _Statement:
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Import | ast.ImportFrom):
            continue
        for found in [inner.module or "."] if isinstance(inner, ast.ImportFrom) else [a.name for a in inner.names]:
            if found == "." or _inside(found, package):
                raise VsreError(
                    f"{module.name}, line {inner.lineno}: {found} is imported inside a definition and cannot be "
                    "bundled. Import it at the top."
                )
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])
    last = node.end_lineno or node.lineno
    needs = set(_globals(symtable.symtable("\n".join(module.lines[first - 1 : last]), module.name, "exec")))
    while first > 1 and module.lines[first - 2].startswith("#"):
        first -= 1
    return _Statement(first, last, needs)


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that a statement looks up in its module; annotations count, since configs are checked by them."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals(child)
