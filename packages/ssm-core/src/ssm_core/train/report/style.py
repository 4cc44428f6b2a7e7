"""The looks of the page: light, dark and on paper, with the fonts of the reader's system."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --text: #1c2024; --quiet: #5b636b; --page: #ffffff; --panel: #f5f6f8; --line: #d5d9de;
  --link: #0b57a4; --warning: #8a4b00; --warning-panel: #fff4e0;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --text: #e4e7ea; --quiet: #a3abb3; --page: #14171a; --panel: #1d2125; --line: #3a4047;
    --link: #7db7f2; --warning: #ffc46b; --warning-panel: #33270f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 84rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.35rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere;
}
h3 { font-size: 1rem; margin: 0 0 .5rem; }
a { color: var(--link); }
p { max-width: 60rem; }
.table + h3 { margin-top: 1.6rem; }
.quiet, footer { color: var(--quiet); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; }
.table { overflow-x: auto; margin: 0 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .35rem .65rem; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; vertical-align: top;
}
thead th { color: var(--quiet); font-weight: 600; }
tbody th { font-weight: 600; }
.words { display: inline-block; white-space: normal; width: max-content; max-width: 20rem; }
.swatch {
  display: inline-block; width: .75em; height: .75em; margin-right: .5em; border-radius: 50%;
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.pictures { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
figure {
  margin: 0; padding: 1rem; border-radius: .5rem; background: var(--panel); max-width: 100%;
  break-inside: avoid;
}
figure img {
  display: block; max-width: 100%; height: auto; border-radius: .3rem; background: #ffffff;
}
figcaption {
  margin-top: .6rem; font-size: .9rem; color: var(--quiet); overflow-wrap: anywhere;
  width: 0; min-width: 100%;
}
.warning {
  padding: .6rem .9rem; border-radius: .4rem; color: var(--warning);
  background: var(--warning-panel); overflow-wrap: anywhere;
}
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--link); }
pre {
  padding: 1rem; border-radius: .5rem; background: var(--panel); overflow-x: auto;
  font-size: .85rem; line-height: 1.4;
}
footer { margin-top: 3rem; font-size: .85rem; }
@page { margin: 1.5cm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .pictures { display: block; }
  nav, details { display: none; }
  h2, h3 { break-after: avoid; }
  figure { padding: .5rem 0; background: none; }
  figure img { max-height: 9.5cm; width: auto; }
  .table { overflow: visible; }
  .words { width: auto; }
  th, td { white-space: normal; padding: .25rem .4rem; font-size: 7.5pt; }
}
"""
