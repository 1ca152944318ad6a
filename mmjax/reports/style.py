"""The style sheet of a report: one column on a phone, light and dark, printable."""

from __future__ import annotations

CSS = """
:root {
  --ground: #fbfbfa; --card: #ffffff; --ink: #1c1d21; --soft: #6a6d76; --line: #e4e4e0;
  --right: #1f77b4; --wrong: #d1495b; --good: #23854f; --bad: #c43d4f; --badge: #b26a00;
  --c0: #1f6fb2; --c1: #d9662b; --c2: #2f8f5b; --c3: #b0459a; --c4: #8a6d1c; --c5: #5b5fc7;
  --c6: #c23b4b; --c7: #4a8c93;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15161a; --card: #1d1f24; --ink: #e8e8ea; --soft: #9a9da8; --line: #32353d;
    --right: #4f9fdc; --wrong: #ef7383; --good: #4fbf83; --bad: #ef7383; --badge: #e6a23c;
    --c0: #62aef0; --c1: #f29060; --c2: #5cc78c; --c3: #df86cd; --c4: #d3b455; --c5: #9a9df5;
    --c6: #f07f8c; --c7: #74c1c9;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body {
  margin: 0 auto; max-width: 1180px; padding: 28px 20px 60px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 18px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 14px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 14px; font-weight: 600; margin: 26px 0 10px; color: var(--soft); }
p { margin: 0 0 10px; } figure { margin: 0; } figcaption { font-weight: 600; }
td, th, dd, q, b, .tail, .what, .hit, figcaption { unicode-bidi: isolate; }
svg text { fill: var(--ink); font-family: inherit; } svg { display: block; }
.note, .tail, .control, .what, .axis { color: var(--soft); font-size: 12.5px; }
.badge {
  display: inline-block; vertical-align: 4px; font-size: 12px; font-weight: 600; letter-spacing: 0;
  padding: 1px 9px; border-radius: 99px; border: 1px solid var(--badge); color: var(--badge);
}
.badge.done { border-color: var(--good); color: var(--good); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 10px; }
.tile {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px;
  display: flex; flex-direction: column;
}
.tile b { font-size: 27px; line-height: 1.25; font-weight: 620; font-variant-numeric: tabular-nums; }
.tile .tail { margin-bottom: 4px; }
.control {
  display: flex; justify-content: space-between; gap: 8px; padding-top: 3px; margin-top: 3px;
  border-top: 1px solid var(--line); font-variant-numeric: tabular-nums;
}
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 18px 0 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px;
}
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.chart svg { width: 100%; height: auto; margin-top: 4px; } .narrow { max-width: 340px; }
.legend { display: flex; flex-wrap: wrap; gap: 0 14px; font-size: 12.5px; color: var(--soft); margin: 0; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px; }
svg .axis { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; }
.diagonal { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--c); fill-opacity: 0.16; } .dot { fill: var(--c); } .swatch { background: var(--c); }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); }
.s4 { --c: var(--c4); } .s5 { --c: var(--c5); } .s6 { --c: var(--c6); } .s7 { --c: var(--c7); }
.scroll { overflow-x: auto; max-width: 100%; margin-bottom: 18px; }
.tall { max-height: 460px; overflow-y: auto; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 0 28px; }
.tables { display: flex; flex-wrap: wrap; gap: 0 44px; }
table { border-collapse: collapse; font-size: 14px; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: 0 0 5px; }
th { font-weight: 500; color: var(--soft); text-align: left; }
th, td { padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); }
.numbers td, .numbers thead th { font-variant-numeric: tabular-nums; }
.unbroken th, .unbroken td { white-space: nowrap; } tbody th { color: var(--ink); }
.ground { fill: var(--line); fill-opacity: 0.5; }
.right { fill: var(--right); } .wrong { fill: var(--wrong); }
svg .strong { fill: #ffffff; }
.gallery { display: grid; gap: 10px; }
.asked {
  display: grid; grid-template-columns: 170px 1fr; gap: 14px; align-items: start; padding: 10px 0;
  border-bottom: 1px solid var(--line);
}
.query { display: flex; flex-direction: column; gap: 6px; } q { font-weight: 600; }
.wanted { display: flex; flex-direction: column; gap: 2px; }
ol { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 8px; }
.hit {
  display: flex; flex-direction: column; align-items: center; justify-content: space-between; gap: 2px;
  padding: 5px 5px 2px; border: 2px solid var(--line); border-radius: 8px; background: var(--card);
  max-width: 170px;
}
.hit.good { border-color: var(--good); } .good .mark { color: var(--good); font-weight: 700; }
.bad .mark { color: var(--bad); }
.nothing {
  display: flex; width: 96px; height: 96px; align-items: center; justify-content: center; text-align: center;
  color: var(--soft); font-size: 12px; background: var(--ground); border-radius: 4px;
}
img { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #ffffff; }
.crisp { image-rendering: pixelated; }
.pairs { display: flex; flex-wrap: wrap; gap: 8px; }
.wide { padding: 10px 0; border-bottom: 1px solid var(--line); }
.pair { display: flex; flex-direction: column; align-items: center; gap: 2px; font-size: 13px; }
details { margin: 14px 0; } summary { cursor: pointer; color: var(--soft); margin-bottom: 10px; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px;
  overflow-x: auto; overflow-wrap: normal;
  font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
@media (max-width: 600px) {
  body { padding: 18px 14px 40px; } .asked { grid-template-columns: 1fr; gap: 8px; }
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 8px; }
  .hit { max-width: calc(33% - 6px); } .tiles { grid-template-columns: repeat(2, 1fr); }
}
@media print { body { max-width: none; } .tall { max-height: none; } .card { break-inside: avoid; } }
"""
