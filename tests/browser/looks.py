"""Looks: JavaScript that says whether a page can be read, in either theme and at any width."""

from __future__ import annotations

THEME = "(name) => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
THEMED = """(name) => document.body.dataset.jpThemeName === name
  && !document.querySelector('#jupyterlab-splash')"""
FILLED = """() => [...document.querySelectorAll('.bqplot')].every((figure) => {
  const plot = figure.querySelector('.plotarea_background').getBoundingClientRect().width;
  return Math.abs(figure.getBoundingClientRect().width - plot - 84) < 3;  // the margins
})"""
TO_TOP = "(e) => e.closest('.jp-OutputArea-output').scrollIntoView({block: 'start'})"

# Each text's box must lie inside the picture it belongs to, and no two texts of one picture may meet.
TEXTS = """(figure) => {
  const outer = figure.getBoundingClientRect(), problems = [], seen = [];
  for (const text of figure.querySelectorAll('text')) {
    const box = text.getBoundingClientRect(), said = text.textContent;
    const shown = said.trim() && box.width && getComputedStyle(text).visibility !== 'hidden';
    if (!shown || getComputedStyle(text).display === 'none') continue;
    if (box.left < outer.left - 1 || box.right > outer.right + 1 || box.top < outer.top - 1
        || box.bottom > outer.bottom + 1) problems.push(`clipped: ${said}`);
    for (const [other, b] of seen) {
      const wide = Math.min(box.right, b.right) - Math.max(box.left, b.left);
      const high = Math.min(box.bottom, b.bottom) - Math.max(box.top, b.top);
      if (wide > 1 && high > 2) problems.push(`overlap: ${said} / ${other}`);
    }
    seen.push([said, box]);
  }
  return problems;
}"""

# Least contrast of a text with what is behind it, WCAG 2.2: (L1 + .05) / (L2 + .05).
CONTRAST = """(output) => {
  const rgb = (value) => value.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    return [255, 255, 255];
  };
  const worst = {};
  for (const e of output.querySelectorAll('svg.bqplot text, .bqplot text, .qviz-table td, .qviz-table th, '
      + '.qviz-table caption, .widget-label')) {
    if (!e.textContent.trim() || !e.getBoundingClientRect().width) continue;
    const style = getComputedStyle(e), fill = e.tagName === 'text' ? style.fill : style.color;
    if (!/rgb/.test(fill)) continue;
    const [a, b] = [light(rgb(fill)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const kind = e.tagName === 'text' ? 'picture' : e.closest('table') ? 'table' : 'label';
    if (!(kind in worst) || ratio < worst[kind][0]) worst[kind] = [ratio, e.textContent.trim()];
  }
  return worst;
}"""

# Texts of the pictures with a hue: only curves may have a method's colour.
HUED = """(output) => [...output.querySelectorAll('.bqplot text')]
  .filter((e) => e.textContent.trim() && e.getBoundingClientRect().width)
  .filter((e) => {
    const c = getComputedStyle(e).fill.match(/[\\d.]+/g).map(Number).slice(0, 3);
    return Math.max(...c) - Math.min(...c) > 64;
  })
  .map((e) => `${e.textContent}: ${getComputedStyle(e).fill}`)"""

# What can be used, visible and without a name that a screen reader would say.
NAMELESS = """(output) => {
  const said = (e) => e.getAttribute('aria-label') || e.title || e.getAttribute('placeholder')
    || [...(e.labels || [])].map((label) => label.textContent).join(' ')
    || (e.getAttribute('aria-labelledby') || '').split(' ')
      .map((id) => document.getElementById(id)?.textContent || '').join(' ')
    || (['BUTTON', 'A'].includes(e.tagName) ? e.textContent : '')
    || (e.getAttribute('role') === 'tab' ? e.textContent : '');
  const used = 'button, a[href], input, select, textarea, [role=slider], [role=checkbox], [role=tab]';
  return [...output.querySelectorAll(used)]
    .filter((e) => e.getBoundingClientRect().width && getComputedStyle(e).visibility !== 'hidden')
    .filter((e) => !(said(e) || '').trim()).map((e) => e.outerHTML.slice(0, 160));
}"""

# The ring of the element that has the keyboard's focus: its width in pixels.
RING = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
}"""
