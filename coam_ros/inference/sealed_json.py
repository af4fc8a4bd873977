"""Manifests as sealed JSON: a changed byte of them, or of the files they name, is noticed."""

from __future__ import annotations

from dataclasses import fields
import hashlib
import json
from pathlib import Path
from typing import Any

from coam_ros.inference.errors import EngineIncompatibleError
from coam_ros.inference.files import sha256_of, write_aside

_SEAL = 'sha256'


def save_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write content and the hash over it, aside first and then renamed."""
    write_aside(path, _sealed_text(content).encode())


def load_sealed(path: Path, format_version: int, remedy: str) -> dict[str, Any]:
    """Read what `save_sealed` wrote.

    Args:
        path: of the file.
        format_version: that its entry `format_version` must have.
        remedy: what to do about a file that is refused, for the messages.

    Raises:
        EngineIncompatibleError: not such a file, of another version, or changed since.
    """
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        version = content['format_version']
    except (ValueError, KeyError, TypeError) as error:
        raise EngineIncompatibleError(
            f'Unreadable manifest: {path} is not the JSON of a manifest ({error!r}); {remedy}.'
        ) from error
    if version != format_version:
        raise EngineIncompatibleError(
            f'Manifest of another version: {path} has format version {version!r}, this '
            f'software reads {format_version}; {remedy}.'
        )
    seal = content.pop(_SEAL, None)
    if text != _sealed_text(content):
        raise EngineIncompatibleError(
            f'Changed manifest: {path} carries the hash {seal!r}, wanted '
            f'{_hash(content)!r} and the layout in which it was written; it was edited or '
            f'damaged. {remedy.capitalize()}.'
        )
    return content


def incomplete(path: Path, kind: type, error: Exception, remedy: str) -> EngineIncompatibleError:
    """Make the error of a manifest whose entries are not the fields of its data class."""
    wanted = ', '.join(field.name for field in fields(kind))
    return EngineIncompatibleError(
        f'Incomplete manifest: {path} does not hold exactly the entries {wanted} '
        f'({error}); {remedy}.'
    )


def check_file(path: Path, wanted: str, remedy: str) -> None:
    """Check that a file beside a manifest is the one that the manifest means.

    Args:
        path: of the file.
        wanted: its sha256.
        remedy: what to do about another one, for the messages.

    Raises:
        FileNotFoundError: it is missing.
        EngineIncompatibleError: its content is another.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'Incomplete model: {path} does not exist though the manifest names it; {remedy}.'
        )
    found = sha256_of(path)
    if found != wanted:
        raise EngineIncompatibleError(
            f'Changed model file: {path} has sha256 {found[:12]}, its manifest wants '
            f'{wanted[:12]}; the file is damaged or of another model. {remedy.capitalize()}.'
        )


def _sealed_text(content: dict[str, Any]) -> str:
    return json.dumps({**content, _SEAL: _hash(content)}, indent=2) + '\n'


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
