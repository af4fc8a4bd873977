"""Writes what is generated from the declarations: tables in Markdown, the parameter file.

`python -m coam_ros.nodes.reference README.md docs/*.md config/coam.yaml` brings files up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
import re
import sys

from coam_ros.nodes.interfaces import interface_table
from coam_ros.nodes.parameters import (
    MapRecorderParameters,
    MapServerParameters,
    MatcherParameters,
    parameter_fields,
    ParameterField,
)

_NODES = {
    'matcher': MatcherParameters,
    'map_server': MapServerParameters,
    'map_recorder': MapRecorderParameters,
}
_BLOCK = re.compile(r'(<!-- generated: ([\w -]+) -->\n).*?(<!-- end of generated -->)', re.DOTALL)


def tables() -> dict[str, str]:
    """Give every table by the name that its mark in a Markdown file has."""
    return {
        'interfaces': interface_table(),
        **{f'{name} parameters': parameter_table(kind) for name, kind in _NODES.items()},
    }


def parameter_table(parameters_class: type) -> str:
    """Make the table of a node's parameters, in Markdown."""
    rows = ['| parameter | type | default | allowed | description |', '|---|---|---|---|---|']
    for entry in parameter_fields(parameters_class):
        allowed = ', '.join(entry.choices)
        if entry.range is not None:
            allowed = f'{entry.range[0]:g} .. {entry.range[1]:g}'
        cells = [f'`{entry.name}`', entry.type_name, f'`{_yaml(entry)}`', allowed]
        description = entry.description
        if not entry.read_only:
            description += ' *May change at run time.*'
        rows.append(f'| {" | ".join(cells)} | {description} |')
    return '\n'.join(rows) + '\n'


def parameter_file() -> str:
    """Make the parameter file: every parameter of the nodes at its default, with comments."""
    lines = ['# Every parameter at its default; /** stands for any namespace.', '']
    for name, parameters_class in _NODES.items():
        lines += [f'/**/{name}:', '  ros__parameters:']
        for entry in parameter_fields(parameters_class):
            lines += [f'    # {entry.description}', f'    {entry.name}: {_yaml(entry)}']
        lines.append('')
    return '\n'.join(lines[:-1]) + '\n'


def update(text: str) -> str:
    """Replace the generated blocks of a Markdown text by what they should be.

    Raises:
        KeyError: a block with a name that no table has.
    """
    generated = tables()
    return _BLOCK.sub(lambda block: f'{block[1]}\n{generated[block[2]]}\n{block[3]}', text)


def _yaml(entry: ParameterField) -> str:
    if isinstance(entry.default, str) and entry.default.isalnum():
        return entry.default
    # JSON writes true, 3, 0.1 and "" as YAML reads them.
    return json.dumps(entry.default)


def main(paths: Sequence[str]) -> None:
    """Bring files up to date."""
    for path in map(Path, paths):
        is_yaml = path.suffix == '.yaml'
        path.write_text(parameter_file() if is_yaml else update(path.read_text()))


if __name__ == '__main__':
    main(sys.argv[1:])
