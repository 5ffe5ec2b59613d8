const body = document.querySelector('.layers tbody');
const rows = [...body.rows];
const value = (row, k) => row.cells[k].dataset.v ?? row.cells[k].textContent;
const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b, 'en', {numeric: true}) : a - b;

for (const control of document.querySelectorAll('.control')) control.hidden = false;

for (const button of document.querySelectorAll('.layers thead button')) {
  button.addEventListener('click', () => {
    const head = button.closest('th'), k = head.cellIndex;
    const rising = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of head.parentElement.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const empty = (row) => value(row, k) === '';
    body.append(...rows.toSorted((a, b) => empty(a) - empty(b)
      || (rising ? 1 : -1) * compare(value(a, k), value(b, k)) || rows.indexOf(a) - rows.indexOf(b)));
  });
}

const slider = document.querySelector('#threshold'), only = document.querySelector('#only');
const mark = () => {
  const local = rows.map((row) => row.querySelector('.local').dataset.v);
  const below = local.map((v) => v !== '' && Number(v) < Number(slider.value));
  rows.forEach((row, i) => {
    row.classList.toggle('below', below[i]);
    row.hidden = only.checked && !below[i];
  });
  const counted = below.filter(Boolean).length, all = local.filter((v) => v !== '').length;
  document.querySelector('#level').value = slider.value + ' dB';
  slider.setAttribute('aria-valuetext', slider.value + ' dB');
  document.querySelector('#counted').textContent = counted + ' of ' + all + (all === 1 ? ' layer is' : ' layers are')
    + ' below';
};
if (slider) {
  slider.addEventListener('input', mark);
  only.addEventListener('input', mark);
  mark();
}

const open = (hash) => {
  const target = document.getElementById(hash.slice(1));
  if (target?.matches('details')) target.open = true;
};
document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) open(link.hash);
});
open(location.hash);
