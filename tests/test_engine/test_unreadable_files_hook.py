# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import errno
import re
from pathlib import Path

import pytest
from mmengine.dataset import ConcatDataset
from mmengine.runner import Runner

from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.engine.hooks import unreadable_files_hook
from mmscfs.engine.hooks.unreadable_files_hook import image_files


@pytest.fixture
def spoil(tiny_run, image_folder):
    """Cut the first of the 16 images off, and skip them."""

    def cut(count, **settings):
        images = sorted(image_folder.rglob('*.jpg'))
        for path in images[:count]:
            path.write_bytes(path.read_bytes()[:100])
        tiny_run.train_dataloader.dataset.update(on_error='skip', **settings)
        return [str(path) for path in images[:count]]

    return cut


@pytest.mark.parametrize('workers', [0, 2])
def test_each_file_is_named_once_and_listed(tiny_run, spoil, workers):
    names = spoil(3, max_errors=0.2)
    tiny_run.train_dataloader.update(
        num_workers=workers, persistent_workers=workers > 0
    )
    tiny_run.train_cfg.max_epochs = 4
    runner = Runner.from_cfg(tiny_run)
    runner.train()
    assert runner.epoch == 4
    dataset = runner.train_dataloader.dataset
    assert dataset.num_unreadable == 3
    assert [*image_files(ConcatDataset([dataset]))] == [dataset]
    listed = Path(tiny_run.work_dir, 'unreadable_files.txt').read_text()
    assert listed.splitlines() == names
    if not workers:  # theirs goes to the screen
        log = Path(runner.logger.log_file).read_text()
        for name in names:
            assert log.count(f'cannot read image {name}: ') == 1
        assert re.findall(r'skipped \((\d) of 16', log) == ['1', '2', '3']
        assert log.count('3 files cannot be read') == 1


def test_a_full_disk_costs_only_the_list(tiny_run, spoil, monkeypatch):
    spoil(3, max_errors=0.2)
    monkeypatch.setattr(unreadable_files_hook, 'write_atomically', no_space)
    runner = Runner.from_cfg(tiny_run)
    runner.train()
    assert runner.epoch == 2
    log = Path(runner.logger.log_file).read_text()
    assert 'The list of files that cannot be read was not written' in log


def no_space(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_too_many_end_the_run_after_it_was_saved(tiny_run, spoil):
    names = spoil(3, max_errors=0.1)
    tiny_run.default_hooks.checkpoint.interval = 100
    with pytest.raises(UnreadableImageError) as caught:
        Runner.from_cfg(tiny_run).train()
    message = str(caught.value)
    for part in ('3 of 16', '18.8 %', 'max_errors=0.1', '--resume'):
        assert part in message
    saved = Path(tiny_run.work_dir, 'interrupted.pth')
    assert f'saved as {saved}' in message
    listed = Path(tiny_run.work_dir, 'unreadable_files.txt').read_text()
    assert listed.splitlines() == names
    # With the limit raised the run continues where it was.
    tiny_run.update(resume=True, load_from=str(saved))
    tiny_run.train_dataloader.dataset.max_errors = 0.2
    runner = Runner.from_cfg(tiny_run)
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 8)
