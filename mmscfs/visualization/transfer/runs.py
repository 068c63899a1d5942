# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read what finished detection runs started from and reached.

A work directory is read as mmengine writes it: for each start of the run
``<timestamp>/vis_data/config.py`` and ``scalars.json``, and for a test
``<timestamp>/<timestamp>.json``. Nothing in it is executed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmscfs.checkpoint import parse_config

from .starts import Start, read_start

# Column -> its name in the log, a fraction of 1.
VOC_SCORES = {
    'AP^b': 'pascal_voc/mAP',
    'AP50^b': 'pascal_voc/AP50',
    'AP75^b': 'pascal_voc/AP75',
}
COCO_SCORES = {
    'AP^b': 'coco/bbox_mAP',
    'AP50^b': 'coco/bbox_mAP_50',
    'AP75^b': 'coco/bbox_mAP_75',
    'AP^s': 'coco/segm_mAP',
    'AP50^s': 'coco/segm_mAP_50',
    'AP75^s': 'coco/segm_mAP_75',
}


class Run(NamedTuple):
    """A detection run.

    Attributes:
        source (str): The folder, and the checkpoint if it is of a test.
        cfg (dict): The config.
        split (str): "val" or "test".
        start (Start): What it started from.
        metric (str): "pascal_voc" or "coco".
        scores (dict[str, float]): Percent by column.
        problem (str): Why there are no scores, else "".
    """

    source: str
    cfg: dict
    split: str
    start: Start
    metric: str
    scores: dict[str, float]
    problem: str = ''


class Session(NamedTuple):
    """One start of a run: its config, logged lines, and figures of a test."""

    cfg: dict
    lines: list[dict]
    test: dict


def read_run(folder: str | Path) -> Run:
    """Read a work directory; the last validation counts, not the best.

    Raises:
        ValueError: It is none, or its run has no detection scores.
    """
    folder = Path(folder)
    sessions = read_sessions(folder)
    trained = [session for session in sessions if session.lines]
    tested = [session for session in sessions if session.test]
    if not sessions:
        raise ValueError(
            f'{str(folder)!r} is no work directory of a detection run: it '
            'has no <timestamp>/vis_data/config.py, which mmengine writes '
            'at the start (name the folder given as --work-dir)'
        )
    if tested and not trained:
        return _tested_run(folder, tested[-1])
    cfg = (trained or sessions)[-1].cfg
    if not cfg.get('val_evaluator'):
        raise ValueError(
            f'{str(folder)!r} is no detection run: its config has no '
            'val_evaluator'
        )
    start = read_start([s.cfg for s in trained or sessions])
    lines = [line for session in trained for line in session.lines]
    metrics, problem = last_validation(cfg, lines)
    scores = read_scores(metrics, cfg['val_evaluator'])
    if not (problem or scores):
        problem = 'its last validation has no AP (was nothing detected?)'
    metric = metric_name(metrics)
    return Run(str(folder), cfg, 'val', start, metric, scores, problem)


def _tested_run(folder: Path, session: Session) -> Run:
    """Read a folder of tools/test.py: the trained run tells the rest."""
    cfg, start = session.cfg, Start('-', '-')
    checkpoint = Path(str(cfg.get('load_from')))
    trained = [s.cfg for s in read_sessions(checkpoint.parent) if s.lines]
    if trained:
        start = read_start(trained)
        cfg = trained[-1] | dict(test_dataloader=cfg.get('test_dataloader'))
    scores = read_scores(session.test, session.cfg.get('test_evaluator'))
    problem = '' if scores else 'its test has no AP'
    total, unit = schedule(cfg)
    reached = re.search(r'(epoch|iter)_(\d+)$', checkpoint.stem)
    if reached and int(reached[2]) < total:
        problem = f'unfinished: {checkpoint.name} of {total} {unit}'
        scores = {}
    source = f'{folder}, test of {checkpoint.name}'
    metric = metric_name(session.test)
    return Run(source, cfg, 'test', start, metric, scores, problem)


def read_sessions(folder: Path) -> list[Session]:
    """Read every start of a run, oldest first; none if it is no folder.

    Raises:
        ValueError: A file is damaged.
    """
    sessions = []
    for log in sorted(folder.glob('*/vis_data')):
        configs = [*log.glob('config.py')] or [*folder.glob('*.py')]
        if not configs or not re.fullmatch(r'\d{8}_\d{6}', log.parent.name):
            continue
        try:
            cfg = parse_config(configs[0].read_text(encoding='utf-8'))
        except ValueError as error:
            raise ValueError(f'{configs[0]}: {error}') from error
        tested = log.parent / f'{log.parent.name}.json'
        lines = read_lines(tested)
        sessions.append(
            Session(
                cfg,
                read_lines(log / 'scalars.json'),
                lines[-1] if lines else {},
            )
        )
    return sessions


def read_lines(path: Path) -> list[dict]:
    """Read a file of a json object a line; no file has no lines.

    Raises:
        ValueError: A line is damaged. A torn last line is left out: the run
            was killed, or is writing.
    """
    if not path.is_file():
        return []
    try:
        texts = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: damaged ({error})') from error
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(_object(json.loads(text)))
        except (ValueError, RecursionError) as error:  # json's are such
            if number < len(texts):
                raise ValueError(
                    f'{path}, line {number}: damaged ({error})'
                ) from error
    return lines


def _object(content: Any) -> dict:
    if not isinstance(content, dict):
        raise ValueError('no json object')
    return content


def schedule(cfg: Mapping) -> tuple[int, str]:
    """Return the length of the training, in "epochs" or "iterations"."""
    train_cfg = cfg.get('train_cfg')
    if not isinstance(train_cfg, Mapping):
        return 0, 'iterations'
    if 'max_epochs' in train_cfg:
        return train_cfg['max_epochs'], 'epochs'
    return train_cfg.get('max_iters', 0), 'iterations'


def last_validation(
    cfg: Mapping, lines: Sequence[Mapping]
) -> tuple[Mapping, str]:
    """Find the validation at the end of the training.

    Returns:
        tuple[Mapping, str]: Its line and ""; or nothing, and where the
        training stands.
    """
    total, unit = schedule(cfg)
    # A line of training, and only such, has its iteration.
    at = max((i for i, v in enumerate(lines) if 'iter' in v), default=-1)
    trained, validations = lines[at] if at >= 0 else {}, lines[at + 1 :]
    reached = trained.get('iter' if unit == 'iterations' else 'epoch', 0)
    if validations:
        logger = (cfg.get('default_hooks') or {}).get('logger') or {}
        by_epoch = logger.get('log_metric_by_epoch', True)
        if by_epoch == (unit == 'epochs'):
            reached = validations[-1].get('step', 0)
        elif unit == 'iterations':
            # The line does not tell: validations come at every multiple of
            # the interval, and at the end.
            interval = cfg['train_cfg'].get('val_interval', 1)
            first = -(-max(reached, 1) // interval)
            reached = min(interval * (first + len(validations) - 1), total)
        if reached == total:
            return validations[-1], ''
    problem = f'unfinished: {reached} of {total} {unit}'
    return {}, problem + (', not yet evaluated' if reached == total else '')


def metric_name(metrics: Mapping) -> str:
    """Return which evaluator's scores are taken."""
    return 'pascal_voc' if 'pascal_voc/mAP' in metrics else 'coco'


def read_scores(
    metrics: Mapping, evaluator: Mapping | Sequence | None
) -> dict[str, float]:
    """Return the scores in percent by column, those that there are."""
    names = dict(pascal_voc=VOC_SCORES, coco=COCO_SCORES)[metric_name(metrics)]
    scores = {
        column: 100 * metrics[name]
        for column, name in names.items()
        # COCO's API says -1, or not a number, where there is nothing.
        if type(metrics.get(name)) in (int, float) and metrics[name] >= 0
    }
    if isinstance(evaluator, Mapping):
        evaluator = [evaluator]
    for part in evaluator or []:
        thresholds = part.get('iou_thrs', 0.5)
        if str(part.get('type')).endswith('VOCMetric') and (
            not isinstance(thresholds, list) or len(thresholds) < 10
        ):
            # mmdet's mAP is the mean over these, not over 0.50 to 0.95.
            scores.pop('AP^b', None)
    return scores
