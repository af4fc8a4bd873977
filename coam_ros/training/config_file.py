"""Configs as YAML files and `key.sub=value` words, read into frozen dataclasses.

Written here, not taken from a library: those that fill dataclasses from YAML know no unions told
apart by a `kind` with constants of their own, or bring far more code than this.

A dataclass field whose metadata has `kinds`, a mapping from kind to dataclass, holds one of these
(or a tuple of them) and is written with a key `kind`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
import dataclasses
import difflib
from pathlib import Path
import re
import types
from typing import Any, get_args, get_origin, get_type_hints, Literal, TypeVar, Union

import yaml

_REFERENCE = re.compile(r'\$\{(\w+)\}')
_Config = TypeVar('_Config')
Values = dict[str, Any]


def read_values(path: Path) -> Values:
    """Read a YAML file that holds a mapping.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no YAML file: {error}. Correct it.') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path} holds {_describe(values)}, wanted keys and values; correct it.')
    return values


def apply_overrides(values: Values, words: Iterable[str]) -> Values:
    """Return the values with `key.sub=value` words applied in order.

    A key is a path of names, and of indices where it meets a list; a value is YAML.

    Raises:
        ValueError: a word has no `=`, its value is no YAML, or its index is beyond the list.
    """
    for word in words:
        key, equals, text = word.partition('=')
        if not equals or not key:
            raise ValueError(f'{word!r} is no override, wanted key=value; correct the command.')
        try:
            change = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f'The value of {word!r} is no YAML: {error}. Quote it.') from error
        for name in reversed(key.split('.')):
            change = {name: change}
        values = merge(values, change)
    return values


def merge(base: Any, change: Any, where: str = '') -> Any:  # noqa: ANN401  (whatever YAML holds)
    """Return `base` with the entries of `change`; another `kind` replaces all of a mapping.

    Raises:
        ValueError: an index is beyond a list.
    """
    if isinstance(change, dict) and isinstance(base, list):
        items = list(base)
        for index, value in change.items():
            path = _join(where, index)
            if not str(index).isdecimal() or int(index) >= len(items):
                raise ValueError(
                    f'{path}: {where} has {len(items)} entries, wanted an index from 0 to '
                    f'{len(items) - 1}; correct the key, or give the whole list.'
                )
            items[int(index)] = merge(items[int(index)], value, path)
        return items
    if isinstance(change, dict) and isinstance(base, dict):
        kind = base.get('kind')
        if change.get('kind', kind) == kind:
            return base | {
                key: merge(base.get(key), value, _join(where, key))
                for key, value in change.items()
            }
    return change


def fill_references(values: Values, *, leaves_unset: bool) -> Values:
    """Put the values of top-level keys in the place of `${key}` in all texts.

    Args:
        values: plain values.
        leaves_unset: whether a reference to a key that is not set stays as it is.

    Raises:
        ValueError: a text refers to a key that is not set, and may not.
    """

    def fill(value: Any, where: str) -> Any:  # noqa: ANN401
        if isinstance(value, dict):
            return {key: fill(entry, _join(where, key)) for key, entry in value.items()}
        if isinstance(value, list):
            return [fill(entry, _join(where, index)) for index, entry in enumerate(value)]
        if isinstance(value, str):
            return _REFERENCE.sub(lambda found: look_up(found, where), value)
        return value

    def look_up(found: re.Match[str], where: str) -> str:
        key = found[1]
        if values.get(key) is None:
            if leaves_unset:
                return found[0]
            raise ValueError(
                f'{where} needs {key}, which is not set; give it on the command line: {key}=...'
            )
        return str(values[key])

    return fill(values, '')


def build(cls: type[_Config], values: Any, where: str = '') -> _Config:  # noqa: ANN401
    """Build a dataclass from plain values; what is not given keeps its default.

    Args:
        cls: the dataclass.
        values: mapping of field names to what YAML holds.
        where: path of keys to it, for messages.

    Raises:
        ValueError: an unknown or missing key, a value of another type, or one out of range; the
            message names the key.
    """
    if not isinstance(values, dict):
        raise _wrong_type(where, values, 'keys and values')
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in values:
        if key not in fields:
            # Of equal names the first counts.
            below = dict(reversed([*_keys_below(cls)]))
            raise ValueError(f'{_join(where, key)}: unknown key. {_advise(key, fields, below)}')
    arguments = {
        key: _convert(
            hints[key],
            _with_defaults(fields[key], value),
            _join(where, key),
            fields[key].metadata.get('kinds'),
        )
        for key, value in values.items()
    }
    for name, field in fields.items():
        has_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if not has_default and name not in arguments:
            raise ValueError(f'{_join(where, name)} is missing; give it a value.')
    try:
        return cls(**arguments)
    except ValueError as error:
        # The dataclass knows its fields, not where it stands.
        place = '' if str(error).startswith(where) else f'{where}: '
        raise ValueError(f'{place}{error}') from error


def _with_defaults(field: dataclasses.Field, value: Any) -> Any:  # noqa: ANN401
    """Fill a mapping up with the default of its field, which may not be that of its class."""
    factory = field.default_factory
    if not isinstance(value, dict) or factory is dataclasses.MISSING or 'kinds' in field.metadata:
        return value
    return to_values(factory()) | value


def check_least(where: str, config: object, **least: float) -> None:
    """Raise a ValueError where a field is smaller than wanted; None is fine.

    Args:
        where: path of keys to the config.
        config: dataclass.
        **least: smallest value by field.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise ValueError(
                f'{_join(where, name)} is {value}, wanted at least {bound}; correct it.'
            )


def to_values(config: Any) -> Any:  # noqa: ANN401
    """Return a config as plain values, from which `build` makes it again."""
    if dataclasses.is_dataclass(config):
        values = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            kinds = field.metadata.get('kinds')
            values[field.name] = to_values(value) if kinds is None else _with_kind(value, kinds)
        return values
    if isinstance(config, tuple):
        return [to_values(entry) for entry in config]
    return config


def to_yaml(config: Any) -> str:  # noqa: ANN401
    """Return a config as the text of a YAML file."""
    return yaml.safe_dump(to_values(config), sort_keys=False, default_flow_style=None, width=99)


def differences(old: Any, new: Any, where: str = '') -> list[str]:  # noqa: ANN401
    """Name what differs between two plain values: `key: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(key, old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(index, *pair) for index, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if old == new else [f'{where}: {old!r} -> {new!r}']
    return [line for key, *pair in pairs for line in differences(*pair, _join(where, key))]


def _with_kind(value: Any, kinds: Mapping[str, type]) -> Any:  # noqa: ANN401
    if isinstance(value, tuple):
        return [_with_kind(entry, kinds) for entry in value]
    if value is None:
        return None
    kind = next(name for name, cls in kinds.items() if cls is type(value))
    return {'kind': kind, **to_values(value)}


def _convert(hint: Any, value: Any, where: str, kinds: Mapping[str, type] | None) -> Any:  # noqa: ANN401
    """Turn what YAML holds into what a field's annotation wants."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and type(None) in options:
        if value is None:
            return None
        rest = tuple(option for option in options if option is not type(None))
        return _convert(Union[rest], value, where, kinds)  # noqa: UP007  (made from a tuple)
    if origin is tuple:
        return _convert_list(options, value, where, kinds)
    if kinds is not None:
        return _build_kind(kinds, value, where)
    if origin is Literal:
        # True is no 1.
        if value not in options or type(value) is not type(options[0]):
            raise ValueError(f'{where} is {value!r}. {_advise(value, options)}')
        return value
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    return _convert_scalar(hint, value, where)


def _convert_list(
    options: tuple,
    value: Any,  # noqa: ANN401
    where: str,
    kinds: Mapping[str, type] | None,
) -> tuple:
    if not isinstance(value, list):
        raise _wrong_type(where, value, 'a list')
    if options[-1] is Ellipsis:
        options = options[:1] * len(value)
    if len(options) != len(value):
        raise ValueError(
            f'{where} is {value}: {len(value)} entries, wanted {len(options)}; correct it.'
        )
    return tuple(
        _convert(option, entry, _join(where, index), kinds)
        for index, (option, entry) in enumerate(zip(options, value, strict=True))
    )


def _build_kind(kinds: Mapping[str, type], value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        raise _wrong_type(where, value, 'a mapping with a key kind')
    kind = value.get('kind')
    if kind not in kinds:
        raise ValueError(f'{where}.kind is {kind!r}. {_advise(kind, kinds)}')
    return build(kinds[kind], {k: v for k, v in value.items() if k != 'kind'}, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    wanted = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}[hint]
    if hint is float:
        # YAML 1.1 takes 1e-4 for text, for want of a dot.
        try:
            number = float('nan') if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = float('nan')
        if number != number:
            raise _wrong_type(where, value, wanted)
        return number
    if type(value) is not hint:
        raise _wrong_type(where, value, wanted)
    return value


def _wrong_type(where: str, value: object, wanted: str) -> ValueError:
    return ValueError(f'{where} is {_describe(value)}, wanted {wanted}; correct it.')


def _describe(value: object) -> str:
    return f'{type(value).__name__} {value!r}'


def _keys_below(cls: type, where: str = '') -> Iterator[tuple[str, str]]:
    """Give names of fields of a dataclass's dataclasses, each with the keys that lead to it."""
    for name, hint in get_type_hints(cls).items():
        if where:
            yield name, _join(where, name)
        if dataclasses.is_dataclass(hint):
            yield from _keys_below(hint, _join(where, name))


def _advise(given: object, known: Collection, below: Mapping[str, str] | None = None) -> str:
    paths = {**(below or {}), **{str(name): str(name) for name in known}}
    near = difflib.get_close_matches(str(given), paths, n=1)
    hint = f'Did you mean {paths[near[0]]!r}? ' if near else ''
    return f'{hint}Wanted one of: {", ".join(map(str, known))}.'


def _join(where: str, key: object) -> str:
    return f'{where}.{key}' if where else str(key)
