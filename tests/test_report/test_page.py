# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The page as text, and in a browser (tests/install_browser.sh brings one)."""

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
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

from mmscfs.report import make_page
from mmscfs.report.page import (
    describe_state,
    differences,
    last_score,
    name_runs,
    results,
)
from mmscfs.report.pictures import choose, encode, find_pictures, make_pictures
from mmscfs.results import Result, read_log, write_result

PHONE = dict(width=360, height=800)
HOSTILE = "<img src=x onerror=document.title='owned'>"
SCRIPT = "</script></pre><script>document.title='owned'</script>"


def run(folder, lines=(), cfg=None, **kwargs):
    write_start(folder, cfg or scfs_cfg(), lines, **kwargs)
    return read_log(folder)


def test_time_left(tmp_path):
    """200 of 400 iterations of half a second are to come."""
    log = run(tmp_path, healthy_lines(200))
    assert describe_state(log, log.written) == 'running, about 100 s left'
    assert describe_state(log, log.written + 7300) == (
        'stopped, silent for 2 h'
    )


def test_names(tmp_path):
    logs = [run(tmp_path / name) for name in ('a/x', 'b/x', 'y')]
    assert name_runs(logs) == ['a/x', 'b/x', 'y']


def test_a_run_that_has_only_begun(tmp_path):
    log = run(tmp_path)
    page = make_page([log], now=log.written)
    for words in (
        'Running, nothing is logged yet',
        'nothing is logged of its training yet',
        'There are no pictures yet.',
        'No evaluation has written a result here yet.',
    ):
        assert words in page


def test_damage_and_skipped_steps_are_noted(tmp_path):
    """A torn line; the first 10 of 40 lines have 6 skipped steps of 10."""
    lines = [
        train_line(i, skipped=0.6 if i <= 100 else 0.0)
        for i in range(10, 401, 10)
    ]
    log = run(tmp_path / 'a', lines, rest='{"a\n{}\n{"b')
    page = make_page([log])
    assert 'lines of 20260101_000000/vis_data/scalars.json: 1.' in page
    assert 'a: 15 % of its steps were skipped' in page
    folder = tmp_path / 'b'
    page = make_page([run(folder, healthy_lines())])
    assert 'To note' not in page
    names = ''.join(f'/data/<{i}>.jpg\n' for i in range(12))
    (folder / 'unreadable_files.txt').write_text(names)
    page = make_page([read_log(folder)])
    assert (
        'b: 12 files could not be read and were skipped: /data/&lt;0' in page
    )
    assert '/data/&lt;9&gt;.jpg, …' in page


def test_what_differs(tmp_path):
    one, two = scfs_cfg(work_dir='a'), scfs_cfg(work_dir='b', extra='x' * 500)
    two['optim_wrapper']['optimizer']['lr'] = 0.2
    logs = [run(tmp_path / 'a', cfg=one), run(tmp_path / 'b', cfg=two)]
    assert differences(logs) == [
        ['optim_wrapper.optimizer.lr', '0.1', '0.2'],
        ['extra', '–', 'x' * 160],
    ]
    assert differences(logs[:1]) == []
    two['extra'] = dict.fromkeys(map(str, range(200)), 1)
    logs = [logs[0], run(tmp_path / 'c', cfg=two)]
    rows = differences(logs)
    assert len(rows) == 151
    assert rows[-1] == ['and 51 more', '…', '…']


def test_scores_in_words(tmp_path):
    log = run(tmp_path / 'a', healthy_lines(200))
    assert last_score(log) == 'k-NN accuracy 35 % (k = 10) at epoch 5'
    log = run(tmp_path / 'b', detector_lines(), detector_cfg())
    assert last_score(log) == 'Box AP, VOC 50 % at iteration 100'
    scores = 'pascal_voc/mAP 0.5, pascal_voc/AP50 0.75'
    assert results(log, 'b', []) == [
        ['b', 'last validation', 'voc', 'Box AP, VOC 50 %', scores]
    ]
    assert last_score(run(tmp_path / 'c')) is None


def test_results_and_what_cannot_be_read(tmp_path):
    """A test's scores stand once, if an evaluation wrote them, too."""
    log = write_start(tmp_path, scfs_cfg(), [])
    scores = {'knn/top1': 61.25, 'knn/k': 20}
    path = log.parent / '20260101_000000.json'
    path.write_text(json.dumps(scores | {'time': 0.5}))
    damaged = tmp_path / 'epoch_1.svm.json'
    damaged.write_text('{"format": "mmscfs-result-1", "protocol": 3}')
    (tmp_path / 'other.json').write_text('{"images": [')
    words = ['k-NN accuracy 61.25 %', 'knn/top1 61.25, knn/k 20']
    found = read_log(tmp_path)
    assert found.state(found.written) == 'tested'
    notes = []
    assert results(found, 'a', notes) == [['a', 'test', 'scenes', *words]]
    (note,) = notes
    assert note.startswith(f'a: result {str(damaged)!r}: missing')
    result = Result(
        protocol='knn',
        dataset='digits',
        config='knn',
        checkpoint='epoch_1.pth',
        network=None,
        pretraining=dict(method=None, epochs=1, batch_size=8, dataset=None),
        backbone='ResNet-18',
        metrics=scores,
        settings={},
        work_dir='x',
        epoch=1,
    )
    write_result(tmp_path / 'epoch_1.knn.json', result)
    wanted = [['a', 'knn', 'digits, epoch_1.pth', *words]]
    assert results(found, 'a', []) == wanted


def test_pictures_of_a_resumed_run(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), healthy_lines(80))
    for step in (0, 40, 80, 120):
        write_picture(log, 'views', step)
    again = write_start(tmp_path, scfs_cfg(), [], '20260102_000000')
    later = write_picture(again, 'views', 80)
    (again / 'vis_image/strange.png').write_text('x')
    Image.new('RGB', (9, 9)).save(tmp_path / 'detections.png')
    found = find_pictures(read_log(tmp_path))
    assert [step for step, _ in found['views']] == [0, 40, 80, 120]
    assert found['views'][2] == (80, later)
    assert found['detections'] == [(None, tmp_path / 'detections.png')]
    assert set(found) == {'views', 'detections'}
    views, detections = make_pictures([read_log(tmp_path)])
    assert [when for when, _ in views.pictures] == [
        'Iteration 120, epoch 3',
        'Iteration 80, epoch 2',
        'Iteration 40, epoch 1',
        'Iteration 0, epoch 0',
    ]
    assert (views.title, detections.title) == ('Crops', 'Detections')


def test_pictures_are_made_small_and_some_left_out(tmp_path):
    log = write_start(tmp_path, scfs_cfg(), healthy_lines(80))
    for step in range(9):
        write_picture(log, 'views', step, size=(2000, 1000))
    pictures = find_pictures(read_log(tmp_path))['views']
    assert [step for step, _ in choose(pictures, 3)] == [0, 4, 8]
    assert choose(pictures, 9) == pictures
    data = base64.b64decode(encode(pictures[0][1]).split(',')[1])
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (1120, 560)
        assert image.getpixel((5, 5))[0] > 240
    path = pictures[1][1]
    path.write_bytes(path.read_bytes()[:99])
    assert encode(path) == ''


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A healthy run, a hostile and resumed one, and a detector."""
    folder = tmp_path_factory.mktemp('report')
    log = write_start(folder / 'scfs', scfs_cfg(), healthy_lines())
    for step, color in ((0, 'red'), (40, 'green'), (400, 'blue')):
        write_picture(log, 'views', step, color)
        write_picture(log, 'search_maps', step, color, (600, 900))
    hostile = scfs_cfg(note=SCRIPT, evil=HOSTILE)
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


def test_in_a_browser(browser, folders, tmp_path):
    """It complains of nothing, loads nothing, and draws and fits all."""
    file, faults, requests = tmp_path / 'report.html', [], []
    file.write_text(make_page([read_log(folder) for folder in folders]))
    page = browser.new_page(viewport=PHONE)
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.on('console', lambda message: faults.append(message.text))
    page.on('request', lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    plots = page.locator('.plot')
    assert plots.count() == page.locator('.plot .main-svg:first-child').count()
    for plot in plots.all():
        figure = json.loads(plot.get_attribute('data-figure'))
        named = [trace for trace in figure['data'] if 'name' in trace]
        assert plot.locator('.js-line').count() >= len(named) > 0
        box = plot.bounding_box()
        assert 250 <= box['width'] <= PHONE['width'] - box['x']
    for image in page.locator('img').all():
        assert image.evaluate('(image) => image.naturalWidth') > 0
    for fold in page.locator('details').all():
        fold.evaluate('(fold) => { fold.open = true; }')
    width = page.evaluate('document.documentElement.scrollWidth')
    assert width == PHONE['width']

    # What comes from runs is text, also beside the pointer.
    loss = page.locator('figure', has_text='Total loss').first
    loss.locator('.plot').hover(position=dict(x=80, y=100))
    loss.locator('.hoverlayer .legendtext').first.wait_for()
    hovered = ' '.join(loss.locator('.legendtext').all_text_contents())
    assert '<img src=x onerror=document' in hovered
    assert 'owned' not in page.title().replace(HOSTILE, '')
    assert page.locator('img[src=x]').count() == 0
    assert page.locator('script').count() == 2
    assert page.locator('.run h3').nth(1).inner_text() == HOSTILE
    assert SCRIPT in page.locator('pre').nth(1).text_content()
    assert page.get_by_text('loss_$\\x$<b>').count() > 0

    # A run is hidden in all charts.
    lines = loss.locator('.scatterlayer .js-line')
    assert lines.count() == 2
    page.get_by_label('scfs', exact=True).uncheck()
    assert lines.count() == 1
    assert faults == []
    loaded = [url for url in requests if not url.startswith('data:')]
    assert loaded == [file.as_uri()]
    page.close()
