"""Pieces of a report in one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
import html

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #222; }
h1, h2 { font-weight: 600; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .9em .25em 0; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top; }
img { max-width: 100%; }
.met { color: #2f9e44; font-weight: 600; }
.missed { color: #c8321e; font-weight: 600; }
figure { margin: 1.2em 0; }
figcaption { color: #555; }
.side { display: flex; flex-wrap: wrap; gap: 1em; }
.side figure { flex: 1 1 420px; margin: 0; }
code { background: #f3f3f3; padding: 0 .25em; }
"""


def make_page(title: str, parts: Iterable[str]) -> str:
    """Make a page of pieces of HTML under a title, which is plain text."""
    title = html.escape(title)
    return '\n'.join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<title>{title}</title><style>{_STYLE}</style></head><body>',
            f'<h1>{title}</h1>',
            *parts,
            '</body></html>',
        ]
    )


def make_table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Make a table of plain text."""
    head = ''.join(f'<th>{html.escape(cell)}</th>' for cell in header)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row) + '</tr>' for row in rows
    )
    return f'<table>{f"<tr>{head}</tr>" if head else ""}{body}</table>'


def make_figure(data: bytes, kind: str, caption: str) -> str:
    """Make a picture with a caption of plain text; `kind` is png or jpeg."""
    encoded = base64.b64encode(data).decode('ascii')
    caption = html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/{kind};base64,{encoded}">'
        f'<figcaption>{caption}</figcaption></figure>'
    )
