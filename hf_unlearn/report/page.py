"""The shell of a self-contained page: no network, light and dark, phone and print."""

from collections.abc import Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #ffffff; --muted: #5a5f66; --line: #d9dce0; --soft: #f3f5f7;
  --link: #0b57a4; --original: #c24e00; --unlearned: #0072b2; --twins: #00805e; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --page: #15181c; --muted: #a3abb5; --line: #3a4048;
  --soft: #20242a; --link: #8ac4ff; --original: #e69f00; --unlearned: #56b4e9; --twins: #2fbf94; } }
@media print { :root { color-scheme: light; --text: #000; --page: #fff; --muted: #444; --line: #ccc; --soft: #fff;
  --link: #000; --original: #c24e00; --unlearned: #0072b2; --twins: #00805e; }
  figure, tr, li { break-inside: avoid; } .wide { overflow: visible; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
p, ul { max-width: 50rem; } li { margin: .3rem 0; } a { color: var(--link); }
.verdict { font-size: 1.15rem; font-weight: 600; border-left: .3rem solid var(--unlearned); margin: 1.25rem 0 .75rem;
  padding: .6rem 1rem; background: var(--soft); }
.muted, figcaption, .interval { color: var(--muted); }
.wide { overflow-x: auto; } .wide:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--muted); white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--page); }
.interval { display: block; font-size: .8rem; } .best { font-weight: 700; }
.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1.25rem;
  margin: 1rem 0; }
figure { margin: 0; max-width: 30rem; } figcaption { font-size: .9rem; } figure strong { color: var(--text); }
svg { width: 100%; height: auto; display: block; overflow: visible; }
summary { cursor: pointer; margin: .5rem 0; font-weight: 600; }
@media (max-width: 40rem) { th, td { padding: .3rem .45rem; } table { font-size: .875rem; }
  tbody th { white-space: normal; min-width: 7rem; } }
@media (max-width: 30rem) { th, td { padding: .3rem .25rem; white-space: normal; } table { font-size: .8rem; }
  tbody th { min-width: 5.2rem; } .interval { font-size: .7rem; } }
"""


def page(title: str, body: str) -> str:
    """A whole document. `title` is escaped here; `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section with a heading; nothing where all its parts are empty."""
    filled = [part for part in parts if part]
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(filled) + "\n</section>" if filled else ""


def prose(text: str) -> str:
    """`text` escaped, with figures kept on one line with their percent signs."""
    return escape(text).replace(" %", "&nbsp;%")


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{prose(text)}</p>' if kind else f"<p>{prose(text)}</p>"


def bullets(sentences: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{prose(text)}</li>" for text in sentences) + "\n</ul>" if sentences else ""


def table(
    rows: Sequence[Sequence[str]],
    caption: str,
    *,
    best: Sequence[Sequence[bool]] | None = None,
    kind: str = "",
) -> str:
    """A table with a header row and row headers; what stands in `[…]` at a cell's end goes on a line of its own.

    Args:
        rows: the header, then the body, as plain text.
        best: `[row][column]` of the body without its first column, which cells are marked as the best.
    """
    header, *body = rows
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    lines = []
    for i, (label, *cells) in enumerate(body):
        marks = best[i] if best else [False] * len(cells)
        filled = "".join(_cell(text, mark) for text, mark in zip(cells, marks, strict=True))
        lines.append(f'<tr><th scope="row">{escape(label.strip())}</th>{filled}</tr>')
    # Scrolls by itself where it is too wide, with the keyboard too.
    return (
        f'<p class="muted">{escape(caption)}.</p>\n<div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(caption)}"><table class="{kind}">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def _cell(text: str, best: bool) -> str:
    value, bracket, interval = text.partition(" [")
    found = escape(value) + (f'<span class="interval">[{escape(interval)}</span>' if bracket else "")
    return f'<td class="best">{found} <span aria-label="best">★</span></td>' if best else f"<td>{found}</td>"


def plot(svg: str, title: str, caption: str = "") -> str:
    """A plot with its title and caption."""
    more = f" {prose(caption)}" if caption else ""
    return f"<figure>{svg}<figcaption><strong>{escape(title)}.</strong>{more}</figcaption></figure>"


def plots(figures: Sequence[str]) -> str:
    return '<div class="plots">\n' + "\n".join(figures) + "\n</div>" if figures else ""
