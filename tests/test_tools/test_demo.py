# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
import subprocess
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).parent.parent.parent


def test_demo_ends_with_table_and_picture(tmp_path):
    """A demo of two iterations on a few scenes goes all the way."""
    data, work = tmp_path / 'scenes', tmp_path / 'work'
    maker = ROOT / 'tools/dataset_converters/make_digit_scenes.py'
    size = ['--train', '128', '--val', '24', '--workers', '0']
    subprocess.run([sys.executable, maker, '--out', data, *size], check=True)
    process = subprocess.run(
        [
            sys.executable,
            ROOT / 'tools/demo.py',
            *('--data', data, '--work-dir', work, '--scenes', '128', '24'),
            *('--cfg-options', 'train_cfg.max_epochs=1'),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert 'SCFS teacher' in process.stdout
    results = json.loads((work / 'demo.json').read_text())
    for network in ('random initialisation', 'SCFS teacher'):
        assert all(0 <= v <= 100 for v in results[network].values())
    picture = cv2.imread(str(work / 'search_maps.png'))
    assert picture.shape[0] > 400
    assert picture.std() > 10
