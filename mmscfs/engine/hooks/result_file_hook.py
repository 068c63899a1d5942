# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import check_writable, read_meta
from mmscfs.results import (
    PROTOCOLS,
    Origin,
    Result,
    backbone_name,
    backbone_origin,
    origin_of,
    read_origin,
    result_path,
    write_result,
)

from ..runner_access import unwrapped_model

NOTE = 'pretrained'  # where a checkpoint's meta says what its run started from
SCORE = r'(top\d+|recall|mAP|mIoU)$'  # higher is better


@HOOKS.register_module()
class ResultFileHook(Hook):
    """Write what an evaluation reached as JSON beside its checkpoint.

    After a training these are the scores of the validation at its end, and
    the best of all validations as ``best/...``; after a test its scores. The
    file of an earlier run of the same config on the same checkpoint is
    replaced.

    The file lies beside the checkpoint that the backbone's ``init_cfg`` names
    (see :func:`result_path`), or without one in the work directory, as
    ``<config>.json``. Checkpoints of the run note what it started from, for
    resumed runs and tests.

    Example:
        In a config:

        >>> evaluation = dict(protocol='linear', dataset='in1k')
        >>> default_hooks = dict(result=dict(type='ResultFileHook'))
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.path = Path()
        self.trained: int | None = None
        self.validation: tuple[int, dict] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read what a whole model, loaded or resumed, started from."""
        meta = read_meta(checkpoint)
        trained = meta.get('epoch' if counts_epochs(runner) else 'iter')
        self.trained = trained if isinstance(trained, int) else None
        start = meta.get(NOTE)
        if not isinstance(start, Mapping) or 'pretraining' not in start:
            # It was trained without this hook.
            path = runner.cfg.get('load_from')
            origin = read_origin(path, checkpoint) if path else Origin()
            start = describe(origin._replace(checkpoint=None, network=None))
        self.start = dict(start)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what the run started from."""
        checkpoint['meta'][NOTE] = self.start

    def before_train(self, runner: Runner, mode: str = 'train') -> None:
        """Find start and file, and check them before the long work.

        Raises:
            OSError: The result cannot be written.
            ValueError: The config does not say what it evaluates.
        """
        if not is_main_process():
            return
        cfg = runner.cfg
        evaluation = cfg.get('evaluation') or {}
        if evaluation.get('protocol') not in PROTOCOLS or not isinstance(
            evaluation.get('dataset'), str
        ):
            raise ValueError(
                f'ResultFileHook: evaluation={dict(evaluation)} must name a '
                f'protocol ({", ".join(PROTOCOLS)}) and a dataset, e.g. '
                "dict(protocol='linear', dataset='in1k'); or leave "
                'default_hooks.result out'
            )
        if is_pretraining(runner):
            origin = origin_of(cfg.to_dict(), get_world_size())
            if mode == 'test' and cfg.get('load_from'):
                origin = read_origin(cfg.load_from)
                network = getattr(runner.test_loop, 'network', None)
                origin = origin._replace(network=network or origin.network)
            self.start = describe(origin)
        elif self.start is None:
            backbone = cfg.model.get('backbone') or {}
            self.start = describe(backbone_origin(backbone))
        checkpoint, network = self.start['checkpoint'], self.start['network']
        if checkpoint and Path(checkpoint).is_file():
            if network == read_origin(checkpoint).network:
                network = None  # an exported student has no teacher beside it
            self.path = result_path(checkpoint, config_stem(runner), network)
        else:
            self.path = Path(runner.work_dir, f'{config_stem(runner)}.json')
        check_writable(self.path)

    def before_test(self, runner: Runner) -> None:
        """Find and check the same for a test."""
        self.before_train(runner, 'test')

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Keep a validation's scores; it may be the last."""
        self.validation = progress(runner), dict(metrics or {})

    def after_train(self, runner: Runner) -> None:
        """Write the scores of the validation at the end."""
        if not is_main_process():
            return
        reached, metrics = self.validation or (None, {})
        if reached != progress(runner):
            runner.logger.warning(
                'no result was written: there was no validation at the end '
                'of the training (see val_cfg and train_cfg.val_begin)'
            )
            return
        histories = runner.message_hub.log_scalars
        best = {
            f'best/{name}': float(histories[f'val/{name}'].max())
            for name in metrics
            if re.search(SCORE, name) and f'val/{name}' in histories
        }
        self.write(runner, metrics | best, reached, 'val')

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Write the scores of a test."""
        if is_main_process():
            self.write(runner, metrics or {}, self.trained, 'test')

    def write(
        self, runner: Runner, metrics: Mapping, epoch: int | None, split: str
    ) -> None:
        """Write the result, with the metrics that are numbers."""
        start = self.start
        assert start is not None  # as before_train() has found it
        if split == 'val' and is_pretraining(runner):
            start['pretraining']['epochs'] = epoch
        result = Result(
            protocol=runner.cfg.evaluation.protocol,
            dataset=runner.cfg.evaluation.dataset,
            config=config_stem(runner),
            checkpoint=start['checkpoint'] and Path(start['checkpoint']).name,
            network=start['network'],
            pretraining=start['pretraining'],
            backbone=backbone_name(runner.cfg.model.get('backbone') or {}),
            metrics={
                name: value
                for name, value in metrics.items()
                if isinstance(value, (int, float))
            },
            settings=read_settings(runner, split),
            work_dir=str(runner.work_dir),
            epoch=epoch,
        )
        write_result(self.path, result)
        runner.logger.info(f'result written to {self.path}')


def is_pretraining(runner: Runner) -> bool:
    """Whether a pre-training is evaluated on its way, or tested."""
    return isinstance(unwrapped_model(runner), BaseSelfSupervisor)


def counts_epochs(runner: Runner) -> bool:
    """Whether a training has epochs, not only iterations."""
    return 'max_epochs' in (runner.cfg.get('train_cfg') or {})


def progress(runner: Runner) -> int:
    """Return the epochs that a run has trained, or else the iterations."""
    return runner.epoch if counts_epochs(runner) else runner.iter


def config_stem(runner: Runner) -> str:
    """Return the name of the run's config, "config" without a file."""
    return Path(runner.cfg.filename or 'config').stem


def describe(origin: Origin) -> dict[str, Any]:
    """Return an origin as results and checkpoints keep it."""
    return dict(
        checkpoint=origin.checkpoint,
        network=origin.network,
        pretraining=dict(
            method=origin.method,
            epochs=origin.epochs,
            batch_size=origin.batch_size,
            dataset=origin.data or None,
            **origin.recipe,
        ),
    )


def read_settings(runner: Runner, split: str) -> dict[str, Any]:
    """Return the settings that took part in an evaluation."""
    cfg = runner.cfg
    train, wrapper, scale = (
        cfg.get(name) or {}
        for name in ('train_cfg', 'optim_wrapper', 'auto_scale_lr')
    )
    loop = runner.val_loop if split == 'val' else runner.test_loop
    bank = getattr(loop, 'bank_dataloader', None)
    settings = {n: train[n] for n in ('max_epochs', 'max_iters') if n in train}
    settings['val_images'] = len(loop.dataloader.dataset)
    if split == 'val':
        loader = runner.train_dataloader
        bank = bank or loader
        optimizer = wrapper.get('optimizer') or {}
        for name in ('lr', 'weight_decay'):
            if name in optimizer:
                settings[name] = optimizer[name]
        steps = wrapper.get('accumulative_counts', 1)
        settings['batch_size'] = loader.batch_size * get_world_size() * steps
        if scale.get('enable'):  # of the learning rate
            settings['base_batch_size'] = scale['base_batch_size']
    if bank is not None:
        settings['train_images'] = len(bank.dataset)
    return settings
