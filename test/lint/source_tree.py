"""What the lint tests know about the checkout: its modules and what they import."""

from __future__ import annotations

import ast
from pathlib import Path
import sys

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'coam_ros'


def source_files(folder: str = PACKAGE) -> list[Path]:
    """List the Python files under a folder of the checkout."""
    files = sorted((ROOT / folder).rglob('*.py'))
    assert files, f'{folder} holds no Python file'
    return files


def subpackages() -> list[str]:
    """Name the subpackages of coam_ros."""
    return sorted(path.parent.name for path in (ROOT / PACKAGE).glob('*/__init__.py'))


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_modules(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, less the standard library."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno}: relative import; write the full name'
            names.add(node.module or '')
            if node.module == PACKAGE:
                names.update(f'{PACKAGE}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and _called_name(node) == 'find_spec':
            # Looked up without being run: the package is needed all the same.
            names.update(a.value for a in node.args if isinstance(a, ast.Constant))
    return {name for name in names if name.split('.')[0] not in sys.stdlib_module_names}


def _called_name(call: ast.Call) -> str:
    """Return the last word of what is called: `f` of `f()` and of `module.f()`."""
    return getattr(call.func, 'attr', getattr(call.func, 'id', ''))
