# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Tables and paragraphs as Markdown, LaTeX and HTML."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

LATEX_SIGNS = {
    "±": r"$\pm$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
LATEX_SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class Table:
    """A table; all rows are as long as the header.

    Attributes:
        title (str): Its heading.
        header (list[str]): Names of the columns.
        rows (list[list[str]]): Cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """An image file beside the report."""

    title: str
    file: str


# A report is a list of headings with tables, pictures, and plain paragraphs.
Part = str | Table | Picture


def as_markdown(title: str, parts: Sequence[Part]) -> str:
    """The report as Markdown."""
    return f"# {title}\n\n" + _join(
        parts, _plain, _markdown_table, lambda picture: f"![{picture.title}]({picture.file})"
    )


def _plain(text: str) -> str:
    return text


def _markdown_table(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return f"## {table.title}\n\n{body}"


def as_latex(title: str, parts: Sequence[Part]) -> str:
    """The report as LaTeX to be included; tables need the package ``booktabs``, pictures ``graphicx``."""
    return f"\\section*{{{_latex(title)}}}\n\n" + _join(parts, _latex, _latex_table, _latex_picture)


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX_SIGNS)), lambda found: LATEX_SIGNS[found[0]], text)


def _latex_table(table: Table) -> str:
    head, *body = (" & ".join(_latex(cell) for cell in line) + r" \\" for line in (table.header, *table.rows))
    lines = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    inner = "\n".join([rf"\begin{{tabular}}{{{'l' * len(table.header)}}}", *lines, r"\end{tabular}"])
    return f"\\begin{{table}}\n\\caption{{{_latex(table.title)}}}\n{inner}\n\\end{{table}}"


def _latex_picture(picture: Picture) -> str:
    include = rf"\includegraphics[width=\linewidth]{{{PurePath(picture.file).stem}}}"
    return f"\\begin{{figure}}\n{include}\n\\caption{{{_latex(picture.title)}}}\n\\end{{figure}}"


def as_html(title: str, parts: Sequence[Part]) -> str:
    """The report as a page of its own."""
    style = "body{font-family:sans-serif}td,th{padding:2px 8px;text-align:left}tr:nth-child(even){background:#eee}"
    body = _join(
        parts,
        lambda text: f"<p>{html.escape(text)}</p>",
        _html_table,
        lambda picture: f'<img src="{html.escape(picture.file)}" alt="{html.escape(picture.title)}">',
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n<h1>{html.escape(title)}</h1>\n{body}</body></html>\n"


def _html_table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "\n".join([line(table.header, "th"), *(line(row, "td") for row in table.rows)])
    return f"<h2>{html.escape(table.title)}</h2>\n<table>\n{rows}\n</table>"


def _join(
    parts: Sequence[Part],
    text: Callable[[str], str],
    table: Callable[[Table], str],
    picture: Callable[[Picture], str],
) -> str:
    pieces = []
    for part in parts:
        if isinstance(part, Table):
            pieces.append(table(part))
        elif isinstance(part, Picture):
            pieces.append(picture(part))
        else:
            pieces.append(text(part))
    return "".join(f"{piece}\n\n" for piece in pieces)
