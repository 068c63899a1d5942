#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Take the backbone out of a checkpoint, for OpenMMLab or another project.

CHECKPOINT may be one of mmscfs, mmpretrain or mmselfsup, a backbone that this
tool wrote, torchvision's or timm's weights, or the releases of SCFS, DINO and
MoCo. It is recognized by what is in it and no number is changed, so the tool
also turns the release of another project into a backbone for OpenMMLab.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded, writing
from command_line import add_network_option, make_parser
from command_paths import checkpoint

# Also the defaults of --format: the first that has OUT's suffix.
FORMATS = ('openmmlab', 'torchvision', 'timm', 'detectron2')
RESNET_WIDTH = 64  # channels of conv1, unless a ResNet was made narrow
EPILOG = """
formats:
  openmmlab    .pth or .safetensors: names of mmpretrain and mmdet; carries the
               pre-training config and where the weights come from.
               For init_cfg=dict(type='Pretrained', checkpoint=OUT); a
               .safetensors file needs _scope_='mmscfs' in it as well
  torchvision  .pth or .safetensors: a ResNet without fc.
               For resnet50().load_state_dict(torch.load(OUT), strict=False)
  timm         .pth or .safetensors: a ResNet or a vision transformer.
               For timm.create_model(..., num_classes=0, checkpoint_path=OUT)
  detectron2   .pkl: a ResNet-50 or ResNet-101. Set in its config
               MODEL.WEIGHTS OUT
               MODEL.RESNETS.DEPTH 50          (or 101)
               MODEL.RESNETS.STRIDE_IN_1X1 False
               MODEL.PIXEL_MEAN [123.675, 116.28, 103.53]
               MODEL.PIXEL_STD [58.395, 57.12, 57.375]
               INPUT.FORMAT RGB
               Its defaults are for other weights, and would cost accuracy
               without an error.

examples:
  # the teacher of a pre-training as one small file for mmdet
  python tools/model_converters/export_backbone.py \\
      work_dirs/scfs_r50/epoch_200.pth scfs_r50.safetensors
  # for detectron2
  python tools/model_converters/export_backbone.py \\
      work_dirs/scfs_r50/epoch_200.pth scfs_r50.pkl
  # a vision transformer's student for timm
  python tools/model_converters/export_backbone.py \\
      work_dirs/dino_vit/epoch_100.pth vit.safetensors \\
      --format timm --network student
  # DINO's own release for OpenMMLab
  python tools/model_converters/export_backbone.py \\
      dino_resnet50_pretrain_full_checkpoint.pth dino_r50.pth

exit codes: 0 written, 1 OUT cannot be written, 2 wrong input, 130 interrupted.
OUT is as it was unless the code is 0.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = make_parser(__doc__, EPILOG)
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        type=checkpoint,
        help='checkpoint, or weights, to take it from',
    )
    parser.add_argument('out', metavar='OUT', type=Path, help='file to write')
    parser.add_argument(
        '--format',
        choices=FORMATS,
        help="names of the tensors (default: by OUT's suffix, detectron2 "
        'for .pkl, else openmmlab)',
    )
    add_network_option(parser)
    parser.add_argument(
        '--overwrite', action='store_true', help='replace OUT if it exists'
    )
    return parser.parse_args(argv)


def choose_format(out: Path, name: str | None) -> str:
    """Return the format of OUT.

    Raises:
        ValueError: Its suffix is none of the format's.
    """
    from mmscfs.checkpoint import SUFFIXES

    if name is None:
        name = next((f for f in FORMATS if out.suffix in SUFFIXES[f]), None)
    if name is None:
        raise ValueError(
            f'OUT {out}: no format has the suffix {out.suffix!r}; end it in '
            '.pth, .safetensors or .pkl'
        )
    if out.suffix not in SUFFIXES[name]:
        raise ValueError(
            f'OUT {out}: --format {name} is written as '
            f'{" or ".join(SUFFIXES[name])}, not {out.suffix!r}'
        )
    return name


def check_out(out: Path, checkpoint: Path, overwrite: bool) -> None:
    """Check that OUT may be written.

    Raises:
        ValueError: It may not.
        OSError: It cannot.
    """
    from mmscfs.checkpoint import check_writable

    check_writable(out)
    if out.exists() and checkpoint.exists() and out.samefile(checkpoint):
        raise ValueError(f'OUT {out} is the checkpoint itself')
    if out.exists() and not overwrite:
        raise ValueError(
            f'OUT {out} exists: choose another or pass --overwrite'
        )


@commanded('OUT is unchanged')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code."""
    args = parse_args(argv)

    from mmscfs.checkpoint import (
        convert,
        describe_source,
        encode,
        find_backbone,
        naming,
        read_checkpoint,
        resnet_settings,
        write_atomically,
    )

    target = choose_format(args.out, args.format)
    check_out(args.out, Path(args.checkpoint), args.overwrite)
    content = read_checkpoint(args.checkpoint)
    with naming(args.checkpoint):
        found = find_backbone(content, args.network)
        state = convert(found, target)
    meta = describe_source(args.checkpoint, content, found)
    encoded = encode(state, target, args.out.suffix, meta)
    with writing(args.out):
        write_atomically(args.out, encoded)
    print(
        f'{args.out}: {target} backbone from {found}, {len(state)} tensors, '
        f'{len(encoded) / 1e6:.1f} MB'
    )
    resnet = resnet_settings(found.state) or {}
    width = resnet.get('stem_channels', RESNET_WIDTH)
    if target != 'openmmlab' and width != RESNET_WIDTH:
        print(
            f'note: this ResNet begins with {width} channels. The models of '
            f'{target} begin with {RESNET_WIDTH} and will not load it; build '
            'one of the same width'
        )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
