# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every setting that the prose and tables name exists in some config."""

import copy
import re
from functools import cache

import pytest
from documents import DOCUMENTS, MARKDOWN, ROOT
from mmengine.config import Config

from mmscfs.settings.names import unread_arguments
from mmscfs.settings.variables import unread_options

# A dotted path, alone or with a value: `model.head.loss_weight=2`.
SETTING = re.compile(r'([A-Za-z_]\w*(?:\.\w+)+)(?:=\S*)?')
# Parts that configs leave out: what these settings build once named.
LEFT_OUT = {
    'model.head.search_loss': dict(type='FeatureSearchLoss'),
}


@cache
def configs():
    """Return every config that can be run, with the parts left out."""
    found = []
    for path in sorted(ROOT.glob('configs/**/*.py')):
        if not {'_base_', 'sweeps'} & {*path.parts}:
            cfg = Config.fromfile(path)
            if cfg.get('model', {}).get('type') == 'SCFS':
                cfg.merge_from_dict(LEFT_OUT)
            found.append(cfg)
    return found


def read_settings(text):
    """Return the settings in the inline code of a document."""
    tops = {top for cfg in configs() for top in cfg}
    return {
        found[1]
        for token in MARKDOWN.parse(text)
        for part in token.children or ()
        if part.type == 'code_inline'
        for word in part.content.split()
        if (found := SETTING.fullmatch(word))
        and found[1].split('.')[0] in tops
    }


def unknown_settings(text):
    """Return the settings of a document that no config has or takes."""
    return sorted(s for s in read_settings(text) if not is_known(s))


@cache
def is_known(setting):
    return any(is_read(cfg, setting) for cfg in configs())


def is_read(cfg, setting):
    """Tell whether a run of a config would read a setting."""
    if [*unread_options({setting: None}, cfg)]:
        return False
    # The other sections are as they were.
    parts = ('custom_imports', 'default_scope', setting.split('.')[0])
    part = Config({k: copy.deepcopy(cfg[k]) for k in parts if k in cfg})
    try:
        part.merge_from_dict({setting: None})
    except (KeyError, TypeError):  # it leads through a value
        return False
    return not [*unread_arguments(part)]


@pytest.mark.parametrize(
    'path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_settings_of_the_prose_exist(path):
    assert not unknown_settings(path.read_text(encoding='utf-8'))


def test_a_setting_that_nothing_takes_is_found():
    text = """
Set `model.search_vues=first`, not `model.search_views=first`; see
`torch.nn.Linear` and `tools/train.py`.

| `default_hooks.pictures.intervals` | `train_cfg.max_epochs` |
|---|---|
"""
    assert unknown_settings(text) == [
        'default_hooks.pictures.intervals',
        'model.search_vues',
    ]
