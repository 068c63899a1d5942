# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The report in a browser: tests/install_browser.sh brings one."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import sync_playwright
from report_runs import (
    detector_cfg,
    detector_lines,
    healthy_lines,
    scfs_cfg,
    train_line,
    write_picture,
    write_start,
)

from mmscfs.engine.hooks import CollapseMonitorHook
from mmscfs.results import Result, read_log, write_result
from mmscfs.visualization.report import make_page, stop_reloading

PHONE, DESKTOP = dict(width=360, height=800), dict(width=1280, height=900)
HOSTILE = "<img src=x onerror=document.title='owned'>"
SCRIPT = "</script></pre><script>document.title='owned'</script>"
TITLES = [
    'k-NN accuracy',
    'k-NN accuracy, layer3',
    'k-NN accuracy, layer4',
    'Total loss',
    'Loss, last layer',
    'layer2, global term',
    'layer2, search term',
    'Teacher entropy',
    'KL, teacher to student',
    'Spread of features',
    'Norm of the centre',
    'Teacher entropy, layer2',
    'Learning rate',
    'Teacher temperature',
    'Teacher momentum',
    'Time of a step',
    'Images a second',
]
# The contrast of every text with the ground that it stands on.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((v) => {
      v /= 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.body.querySelectorAll('*')) {
    const own = [...node.childNodes].some(
      (child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const color = node.closest('svg') ? style.fill : style.color;
    const pair = [light(rgb(color).slice(0, 3)), light(ground(node))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    found.push([ratio, node.tagName, node.textContent.trim().slice(0, 30)]);
  }
  return found;
}"""
# The size of the smallest letters in charts, in pixels.
SMALLEST = """() => Math.min(
  ...[...document.querySelectorAll('.chart svg')].flatMap((svg) => {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    return [...svg.querySelectorAll('text')].map(
      (text) => scale * parseFloat(getComputedStyle(text).fontSize));
  }))"""  # noqa: E501


def write_runs(folder):
    """Write a healthy run, a hostile and resumed one, and a detector."""
    log = write_start(folder / 'scfs', scfs_cfg(), healthy_lines())
    for step, color in ((0, 'red'), (40, 'green'), (400, 'blue')):
        write_picture(log, 'views', step, color)
        write_picture(log, 'search_maps', step, color, (600, 900))
    result = Result(
        protocol='knn',
        dataset='scenes',
        config='knn',
        checkpoint='epoch_10.pth',
        network='teacher',
        pretraining=dict(method=None, epochs=10, batch_size=8, dataset=None),
        backbone='ResNet-18',
        metrics={'knn/top1': 61.25, 'knn/k': 20},
        settings={},
        work_dir='x',
        epoch=10,
    )
    write_result(folder / 'scfs/epoch_10.knn.json', result)
    hostile = scfs_cfg(note=SCRIPT, **{'evil': HOSTILE})
    hostile['train_dataloader']['dataset']['data_root'] = f'data/{SCRIPT}'
    lines = [
        train_line(i, **{'loss_$\\x$<b>': 1.0}) for i in range(10, 99, 10)
    ]
    write_start(folder / HOSTILE, hostile, lines)
    write_start(folder / HOSTILE, hostile, lines[3:], '20260102_000000', '{')
    write_start(folder / 'detector', detector_cfg(), detector_lines())
    return [folder / 'scfs', folder / HOSTILE, folder / 'detector']


@pytest.fixture(scope='module')
def browser():
    names = ('chromium', 'chromium-browser', 'google-chrome')
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, names)), None)
        path = path or playwright.chromium.executable_path
        if not Path(path).is_file():
            pytest.fail(
                'no browser to open reports in; run tests/install_browser.sh '
                f'{shutil.which("python") or "python"}'
            )
        # A container has no user namespaces for the sandbox; ours are our
        # own pages.
        browser = playwright.chromium.launch(
            executable_path=path,
            args=['--no-sandbox', '--disable-gpu', '--disable-sync'],
        )
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    """Files of a report of one run and of one of three."""
    folder = tmp_path_factory.mktemp('report')
    logs = [read_log(run) for run in write_runs(folder)]
    one, three = folder / 'one.html', folder / 'three.html'
    one.write_text(make_page(logs[:1], CollapseMonitorHook))
    three.write_text(make_page(logs, CollapseMonitorHook))
    return SimpleNamespace(one=one, three=three, logs=logs)


@pytest.fixture
def show(browser):
    """Open a page; it must neither complain nor ask for anything."""
    faults, contexts = [], []

    def show(path, viewport=DESKTOP, stopped_clock=False, **settings):
        context = browser.new_context(viewport=viewport, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on('console', lambda message: faults.append(message.text))
        page.on(
            'request',
            lambda request: (
                request.url.startswith(('data:', path.as_uri()))
                or faults.append(request.url)
            ),
        )
        if stopped_clock:
            page.clock.install()
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert faults == []


def titles(page):
    return [
        re.sub(r' (%|nats|s)$', '', title)
        for title in page.locator('.chart .title').all_inner_texts()
    ]


@pytest.mark.parametrize('viewport', [PHONE, DESKTOP])
def test_every_figure_is_there_and_fits(pages, show, viewport, tmp_path):
    page = show(pages.one, viewport)
    assert titles(page) == TITLES
    for chart in page.locator('.chart svg').all():
        box = chart.bounding_box()
        assert box['width'] >= 250
        assert box['height'] >= 120
        assert box['x'] + box['width'] <= viewport['width']
    curves = page.locator('.chart svg path[style*="stroke: var(--run-0)"]')
    assert curves.count() >= len(TITLES)
    for image in page.locator('.picture img:visible').all():
        size = image.evaluate('(i) => [i.complete, i.naturalWidth, i.width]')
        assert size[0]
        assert size[1] > 0
        assert 300 < size[2] <= max(viewport['width'], 640)
    assert page.evaluate(SMALLEST) >= 11
    page.screenshot(path=tmp_path / 'page.png', full_page=True)
    assert (tmp_path / 'page.png').stat().st_size > 50000


@pytest.mark.parametrize('viewport', [PHONE, DESKTOP])
@pytest.mark.parametrize('name', ['one', 'three'])
def test_nothing_is_wider_than_the_screen(pages, show, name, viewport):
    page = show(getattr(pages, name), viewport)
    for fold in page.locator('details').all():
        fold.evaluate('(fold) => { fold.open = true; }')
    width = page.evaluate('document.documentElement.scrollWidth')
    assert width == viewport['width']


def test_row_headings_break_between_words(pages, show):
    """On a phone, where values leave them little room."""
    page = show(pages.three, PHONE)
    for fold in page.locator('details').all():
        fold.evaluate('(fold) => { fold.open = true; }')
    # For each word of a heading whether it stands in one line.
    broken = page.evaluate("""() => {
      const found = [];
      for (const head of document.querySelectorAll('#settings tbody th')) {
        const text = head.firstChild;
        for (const word of text.data.matchAll(/[^\\s.]{2,12}/g)) {
          const range = document.createRange();
          range.setStart(text, word.index);
          range.setEnd(text, word.index + word[0].length);
          if (range.getClientRects().length > 1) found.push(word[0]);
        }
      }
      return found;
    }""")
    assert 'Learning' not in broken
    assert 'Backbone' not in broken
    assert 'momentum' not in broken


def test_a_page_stops_reloading(pages):
    """As if it had never begun to."""
    settings = dict(make_monitor=CollapseMonitorHook, now=1.8e9)
    page = make_page(pages.logs, reload=30, **settings)
    assert page != (still := make_page(pages.logs, **settings))
    assert stop_reloading(page) == still


@pytest.mark.parametrize('viewport', [PHONE, DESKTOP])
def test_long_names_of_folders_fit(pages, show, viewport, tmp_path):
    names = 'x' * 200, 'y' * 200
    for name in names:
        write_start(tmp_path / name, scfs_cfg(seed=name), healthy_lines(100))
    for part in (names[:1], names):
        logs = [read_log(tmp_path / name) for name in part]
        path = tmp_path / f'{len(part)}.html'
        path.write_text(make_page(logs, CollapseMonitorHook))
        page = show(path, viewport)
        width = page.evaluate('document.documentElement.scrollWidth')
        assert width == viewport['width']


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_stands_out(pages, show, scheme, tmp_path):
    page = show(pages.three, color_scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 200
    assert min(found)[0] >= 4.5, min(found)
    page.screenshot(path=tmp_path / f'{scheme}.png')


def test_dark_by_the_system_and_by_hand(pages, show):
    ground = 'getComputedStyle(document.body).backgroundColor'
    assert show(pages.one, color_scheme='dark').evaluate(ground) == (
        'rgb(20, 21, 23)'
    )
    page = show(pages.one)
    assert page.evaluate(ground) == 'rgb(255, 255, 255)'
    button = page.get_by_role('button', name='Dark mode')
    curve = page.locator('.chart svg path[style*="var(--run-0)"]').first
    stroke = '(path) => getComputedStyle(path).stroke'
    before = curve.evaluate(stroke)
    button.click()
    assert page.evaluate(ground) == 'rgb(20, 21, 23)'
    assert curve.evaluate(stroke) != before
    page.reload()
    assert page.evaluate(ground) == 'rgb(20, 21, 23)'
    assert button.get_attribute('aria-pressed') == 'true'
    button.click()
    assert page.evaluate(ground) == 'rgb(255, 255, 255)'


def test_by_keyboard(pages, show):
    page = show(pages.one)
    focused = 'document.activeElement.textContent.trim()'
    page.keyboard.press('Tab')
    assert page.evaluate(focused) == 'Skip to the report'
    assert page.locator('.skip').bounding_box()['x'] >= 0
    outline = 'getComputedStyle(document.activeElement).outlineStyle'
    assert page.evaluate(outline) == 'solid'
    page.keyboard.press('Tab')
    assert page.evaluate(focused) == 'Dark mode'
    page.keyboard.press('Enter')
    assert page.locator('html').get_attribute('data-theme') == 'dark'
    for _ in range(40):
        page.keyboard.press('Tab')
        if page.evaluate('document.activeElement.tagName') == 'SUMMARY':
            break
    assert page.evaluate(focused) == 'Values of k-NN accuracy'
    page.keyboard.press('Enter')
    table = page.locator('.chart details[open] table')
    assert table.count() == 1
    # The validations of healthy_lines: 23 % after the first epoch, and so on.
    assert table.locator('tr').nth(1).inner_text().split() == ['1', '23']
    assert table.locator('tr').last.inner_text().split() == ['10', '50']


def test_skip_link_leads_to_the_report(pages, show):
    page = show(pages.one)
    page.keyboard.press('Tab')
    page.keyboard.press('Enter')
    assert page.evaluate('document.activeElement.id') == 'main'


@pytest.mark.parametrize('name', ['one', 'three'])
def test_structure(pages, show, name):
    page = show(getattr(pages, name))
    levels = page.evaluate(
        '[...document.querySelectorAll("h1, h2, h3, h4")]'
        '.map((heading) => Number(heading.tagName[1]))'
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    steps = zip(levels[:-1], levels[1:], strict=True)
    assert all(after - before <= 1 for before, after in steps)
    for landmark in ('banner', 'navigation', 'main', 'contentinfo'):
        assert page.get_by_role(landmark).count() == 1
    ids = page.evaluate(
        '[...document.querySelectorAll("[id]")].map((node) => node.id)'
    )
    assert len(ids) == len(set(ids))
    # What is referred to is there: sections, clips and markers of charts.
    links = re.findall(
        r'(?:href="|url\()#([^")]+)', getattr(pages, name).read_text()
    )
    assert set(links) <= set(ids)
    assert page.locator('img:not([alt])').count() == 0
    unnamed = page.locator('.chart svg[role=img]:not([aria-label])')
    assert unnamed.count() == 0


def test_pictures_slide(pages, show):
    page = show(pages.one)
    series = page.get_by_role('group', name='Crops of scfs')
    shown = series.locator('img:visible')
    assert shown.get_attribute('alt') == (
        'Crops of scfs at iteration 400, epoch 10'
    )
    series.get_by_role('slider').focus()
    page.keyboard.press('ArrowLeft')
    assert series.locator('output').inner_text() == 'Iteration 40, epoch 1'
    assert shown.get_attribute('alt').endswith('iteration 40, epoch 1')
    page.keyboard.press('Home')
    assert shown.get_attribute('alt').endswith('iteration 0, epoch 0')


def test_without_scripts(pages, show):
    page = show(pages.one, java_script_enabled=False)
    assert page.locator('.picture img').count() == 6
    assert all(i.is_visible() for i in page.locator('.picture img').all())
    assert page.locator('.chart svg').first.is_visible()
    assert not page.get_by_role('slider').first.is_visible()
    assert not page.locator('#theme').is_visible()


def test_hostile_names_are_text(pages, show):
    page = show(pages.three)
    assert 'owned' not in page.title().replace(HOSTILE, '')
    assert page.locator('img[src=x]').count() == 0
    assert page.locator('script').count() == 1
    assert page.locator('.runs .name').nth(1).inner_text() == HOSTILE
    assert SCRIPT in page.locator('pre').nth(1).text_content()
    assert r'loss_$\x$<b>' in titles(page)


def test_a_watched_page_comes_back_to_its_place(pages, show, tmp_path):
    path = tmp_path / 'watched.html'
    path.write_text(make_page(pages.logs[:1], CollapseMonitorHook, 60))
    page = show(path, PHONE, stopped_clock=True)
    page.locator('.chart summary').nth(3).click()
    page.evaluate('scrollTo(0, 2500)')
    with page.expect_event('load'):
        page.clock.run_for(61000)
    assert page.evaluate('scrollY') == 2500
    assert page.locator('.chart details[open]').count() == 1
    page.get_by_role('button', name='Pause reloading').click()
    page.evaluate('window.mark = true')
    page.clock.run_for(200000)
    assert page.evaluate('window.mark')
