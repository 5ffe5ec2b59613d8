"""Frame: how the parts of an explorer are laid out and styled."""

from __future__ import annotations

from qviz.plot.html import STYLE as WORDS

ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "0 1em", "width": "100%"}
GRID = {
    "grid_template_columns": "repeat(auto-fit, minmax(270px, 1fr))",
    "grid_gap": "4px",
    "width": "100%",
}
STYLE = (
    WORDS
    + """
.qviz-explorer path[style*="stroke-dasharray: 10, 10"] { stroke-dasharray: 7px, 3px !important; }
.qviz-explorer path[style*="stroke-dasharray: 2, 10"] { stroke-dasharray: 2px, 3px !important; }
.qviz-explorer path[style*="stroke-dasharray: 10, 5"] { stroke-dasharray: 7px, 2px, 2px, 2px !important; }
.qviz-explorer .object_grp { cursor: grab; }
.qviz-explorer .bqplot path:not(.dot) { pointer-events: none; }
.qviz-explorer .object_grp:hover path { stroke: currentColor; stroke-width: 2px; }
.qviz-explorer.qviz-explorer :focus-visible, .qviz-explorer .noUi-handle:focus {
  outline: 3px solid #0173b2 !important; outline-offset: 1px; box-shadow: 0 0 0 1px white; }
.qviz-explorer p { margin: 2px 0; line-height: 1.4; }
.qviz-explorer .widget-html-content { overflow-x: auto; }
@media (max-width: 600px) {
  .qviz-explorer .qviz-table { font-size: 10px; }
  .qviz-explorer .qviz-table td, .qviz-explorer .qviz-table th { padding: 2px 3px; }
  .qviz-explorer .qviz-swatch { width: 1em; margin-right: .2em; }
}
.qviz-rows .widget-html-content { max-height: 24em; overflow: auto; }
.qviz-rows thead th { position: sticky; top: 0; background: var(--jp-layout-color0, Canvas); }
.qviz-alt { position: absolute; width: 1px; height: 1px; overflow: hidden; }
"""
)
"""Dashes shorter than the treads of a staircase, dots that can be taken whatever covers them, focus rings."""

KEYS = """
window.qvizKeys ??= (window.addEventListener('keydown', (event) => {
  if (!event.target.closest?.('.qviz-explorer, .qviz-predict')) return;
  const held = event.ctrlKey || event.metaKey || event.altKey || event.shiftKey;
  const plain = !held && !['Enter', 'Escape'].includes(event.key);
  event.target.toggleAttribute('data-lm-suppress-shortcuts', plain);
}, true), true);
"""
"""What keeps plain keys in an explorer from the notebook's shortcuts, which would insert and delete cells
when a letter is typed into a list. In Notebook 7 they come before the widget: an arrow key left the slider.
"""

NAMES = (
    KEYS
    + """
const name = (tries) => {
  const sliders = this.closest('.qviz-explorer')?.querySelectorAll('.widget-slider') ?? [];
  for (const slider of sliders) {
    const label = slider.firstChild.textContent, play = slider.nextElementSibling;
    slider.querySelector('[role=slider]')?.setAttribute('aria-label', label);
    if (!play?.matches('.widget-play')) continue;
    play.querySelectorAll('button').forEach((button, i) =>
      button.setAttribute('aria-label', `${i ? 'Stop' : 'Play'} ${label}`));
  }
  if (tries && !sliders.length) setTimeout(() => name(tries - 1), 200);  // the page is not ready yet
  else if (sliders.length) listen(this.closest('.qviz-explorer'));
};
const listen = (root) => root.addEventListener('click', (event) => {
  const button = event.target.closest('tr')?.querySelector('[data-opens]');
  const named = (list) => list.firstChild.textContent === button.dataset.opens;
  const list = button && [...root.querySelectorAll('.widget-dropdown')].find(named)?.querySelector('select');
  if (!list) return;
  list.value = button.value;
  list.dispatchEvent(new Event('change', { bubbles: true }));
  const follow = (tries) => {  // the table is written anew; the keys stay on the row
    const now = [...root.querySelectorAll('[data-opens]')].find((one) => one.value === button.value);
    if (!button.isConnected) now?.focus({ preventScroll: true });
    else if (tries) setTimeout(() => follow(tries - 1), 30);
  };
  follow(100);
});
name(50);
"""
)
"""What gives sliders, and the buttons that play them, accessible names: ipywidgets has no trait for it.

It also lets a click on a row of a table that opens things set the list that it names.
"""
