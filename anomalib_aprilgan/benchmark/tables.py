# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Tables and paragraphs as Markdown, LaTeX and HTML."""

import base64
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LATEX_SIGNS = {
    "±": r"$\pm$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
LATEX_SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
# A longer table does not fit on a page.
LATEX_PAGE_ROWS = 40


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
    """A PNG file beside the report."""

    title: str
    file: Path


# A report is a list of headings with tables, pictures, and plain paragraphs.
Part = str | Table | Picture


def as_markdown(title: str, parts: Sequence[Part]) -> str:
    """The report as Markdown."""
    return f"# {title}\n\n" + _join(
        parts, _plain, _markdown_table, lambda picture: f"![{picture.title}]({picture.file.name})"
    )


def as_markdown_fragment(tables: Sequence[Table]) -> str:
    """Tables alone as Markdown, one level deeper than in a report, to stand below a heading of another page."""
    return "\n\n".join(f"#{_markdown_table(table)}" for table in tables) + "\n"


def _plain(text: str) -> str:
    return text


def _markdown_table(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return f"## {table.title}\n\n{body}"


def as_latex(title: str, parts: Sequence[Part]) -> str:
    """The report as LaTeX to be included, after the packages that its first line names."""
    packages = "% \\usepackage{booktabs,graphicx,longtable}"
    return f"{packages}\n\\section*{{{_latex(title)}}}\n\n" + _join(parts, _latex, _latex_table, _latex_picture)


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX_SIGNS)), lambda found: LATEX_SIGNS[found[0]], text)


def _latex_table(table: Table) -> str:
    head, *body = (" & ".join(_latex(cell) for cell in line) + r" \\" for line in (table.header, *table.rows))
    title, columns = _latex(table.title), "l" * len(table.header)
    lines = "\n".join([*body, r"\bottomrule"])
    if len(body) > LATEX_PAGE_ROWS:
        start = rf"{{\tiny\setlength{{\tabcolsep}}{{2pt}}\begin{{longtable}}{{{columns}}}\caption{{{title}}} \\"
        return f"{start}\n\\toprule\n{head}\n\\midrule\n\\endhead\n{lines}\n\\end{{longtable}}}}"
    start = rf"\begin{{table}}\caption{{{title}}}\resizebox{{\linewidth}}{{!}}{{\begin{{tabular}}{{{columns}}}"
    return f"{start}\n\\toprule\n{head}\n\\midrule\n{lines}\n\\end{{tabular}}}}\\end{{table}}"


def _latex_picture(picture: Picture) -> str:
    include = rf"\includegraphics[width=\linewidth]{{{picture.file.stem}}}"
    return f"\\begin{{figure}}\n{include}\n\\caption{{{_latex(picture.title)}}}\n\\end{{figure}}"


def as_html(title: str, parts: Sequence[Part]) -> str:
    """The report as a page of its own, with the pictures in it."""
    style = "body{font-family:sans-serif}td,th{padding:2px 8px;text-align:left}tr:nth-child(even){background:#eee}"
    body = _join(
        parts,
        lambda text: f"<p>{html.escape(text)}</p>",
        _html_table,
        _html_picture,
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n<h1>{html.escape(title)}</h1>\n{body}</body></html>\n"


def _html_picture(picture: Picture) -> str:
    content = base64.b64encode(picture.file.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{content}" alt="{html.escape(picture.title)}">'


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
