// SPDX-License-Identifier: Apache-2.0

// Returns what is wrong with the page, as a list of texts.
scheme => {
  const wrong = [];
  const name = e => e.tagName.toLowerCase() + (e.className ? '.' + e.className : '') + ' "' + e.textContent.trim().slice(0, 40) + '"';
  const scrolls = e => e.closest('.scroll');

  for (const e of document.querySelectorAll('body, body *:not(svg *)')) {
    const box = e.getBoundingClientRect();
    if (!scrolls(e) && getComputedStyle(e).display != 'inline' && e.scrollWidth > e.clientWidth + 1)
      wrong.push(`${name(e)}: its content is ${e.scrollWidth} wide, it is ${e.clientWidth}`);
    if ((!scrolls(e) || e.matches('.scroll')) && box.right > innerWidth + .5)
      wrong.push(`${name(e)} ends at ${box.right} of ${innerWidth}`);
  }
  for (const e of document.querySelectorAll('.scroll'))
    if (getComputedStyle(e).overflowX != 'auto' || e.tabIndex != 0)
      wrong.push(`${name(e)} cannot be scrolled`);

  // Contrast as in WCAG 2.2, 1.4.3.
  const parse = c => c.match(/[\d.]+/g).map(Number);
  const luminance = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length == 3 || c[3] == 1) return luminance(c);
    }
    return 1;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || e.closest('svg')) continue;
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), behind(e)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) wrong.push(`${name(e)}: contrast ${ratio.toFixed(2)}`);
  }

  const back = behind(document.body);
  if (scheme == 'dark' ? back > .05 : back < .8) wrong.push(`${scheme}, but the background has a luminance of ${back}`);
  const sign = document.querySelector('.verdict svg').getBoundingClientRect();
  if (sign.width < 24 || sign.height < 24) wrong.push('the verdict has no shape');
  for (const bar of document.querySelectorAll('.bar')) {
    const [label, rect] = [bar.querySelector('.label'), bar.querySelector('svg')].map(e => e.getBoundingClientRect());
    if (innerWidth < 600 && label.bottom > rect.top + 1) wrong.push(`${name(bar)}: its label is not above it`);
    if (rect.width < 200) wrong.push(`${name(bar)} is ${rect.width} wide`);
  }
  for (const th of document.querySelectorAll('th')) if (!th.scope) wrong.push(`${name(th)} has no scope`);
  const plain = document.querySelector('#plain');
  if (plain && plain.open) wrong.push('what is not encrypted is not folded');
  return wrong;
}
