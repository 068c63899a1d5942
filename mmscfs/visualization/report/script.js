// Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
(() => {
  'use strict';
  const root = document.documentElement;

  // A browser may refuse storage to a file: then nothing is remembered.
  const store = (kind) => ({
    get(key) {
      try { return window[kind].getItem('mmscfs-' + key); } catch { return null; }
    },
    set(key, value) {
      try { window[kind].setItem('mmscfs-' + key, value); } catch { return; }
    },
  });
  const lasting = store('localStorage');
  const passing = store('sessionStorage');

  for (const part of document.querySelectorAll('.needs-script')) {
    part.hidden = false;
  }

  // Light and dark: as the system, until chosen here.
  const theme = document.getElementById('theme');
  const system = matchMedia('(prefers-color-scheme: dark)');
  const paint = () => {
    const chosen = lasting.get('theme');
    if (chosen) root.dataset.theme = chosen;
    const dark = chosen ? chosen === 'dark' : system.matches;
    theme.setAttribute('aria-pressed', String(dark));
  };
  theme.addEventListener('click', () => {
    const dark = theme.getAttribute('aria-pressed') === 'true';
    root.dataset.theme = dark ? 'light' : 'dark';
    lasting.set('theme', root.dataset.theme);
    theme.setAttribute('aria-pressed', String(!dark));
  });
  system.addEventListener('change', paint);
  paint();

  // A slider shows one picture of a series at a time.
  const sliders = [...document.querySelectorAll('.series')]
    .map((series) => [series, series.querySelector('input[type=range]')])
    .filter(([, slider]) => slider);
  sliders.forEach(([series, slider], number) => {
    const figures = [...series.querySelectorAll('figure')];
    const turn = () => {
      figures.forEach((figure, i) => { figure.hidden = i !== Number(slider.value); });
      const caption = figures[slider.value].querySelector('figcaption');
      const when = caption ? caption.textContent : '';
      series.querySelector('output').textContent = when;
      slider.setAttribute('aria-valuetext', when);
    };
    // Who looked at the last one wants to see the new last one.
    const before = JSON.parse(passing.get('slide-' + number) || 'null');
    if (before !== null && before < Number(slider.max)) slider.value = before;
    slider.addEventListener('input', () => {
      const atEnd = slider.value === slider.max;
      passing.set('slide-' + number, atEnd ? 'null' : slider.value);
      turn();
    });
    turn();
    series.classList.add('sliding');
  });

  // While a training is watched: come back to the same place.
  const folds = [...document.querySelectorAll('details')];
  const name = (fold) => fold.querySelector('summary').textContent;
  const seconds = Number(document.body.dataset.reload);
  const kept = JSON.parse(passing.get('place') || 'null');
  if (seconds && kept && kept.path === location.pathname) {
    for (const fold of folds) fold.open = kept.open.includes(name(fold));
    scrollTo({ top: kept.top, behavior: 'instant' });
  }
  if (seconds) {
    const pause = document.getElementById('pause');
    const rest = (paused) => {
      pause.setAttribute('aria-pressed', String(paused));
      passing.set('paused', paused ? 'yes' : 'no');
    };
    rest(passing.get('paused') === 'yes');
    pause.addEventListener('click', () => {
      rest(pause.getAttribute('aria-pressed') !== 'true');
    });
    setInterval(() => {
      if (pause.getAttribute('aria-pressed') === 'true') return;
      const open = folds.filter((fold) => fold.open).map(name);
      const place = { path: location.pathname, top: scrollY, open };
      passing.set('place', JSON.stringify(place));
      location.reload();
    }, seconds * 1000);
  }
})();
