# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How Sphinx builds these pages: make docs, or see contributing.md.

Nothing is downloaded, neither here nor by a reader's browser. Where the
sources can be read on the web, name the place for links out of the guides to
them, e.g. MMSCFS_SOURCE_URL=https://my.host/mmscfs/blob/main; else their
names stand without a link.
"""

import os
import re
import runpy
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

HERE = Path(__file__).parent
README = HERE / '../../README.md'
# A link's text and target, which is outside of this folder.
OUTSIDE = re.compile(r'(?<!!)\[([^]]+)\]\((?:\.\./){2}([^)\s]+)\)')
# The number of a formula, which docutils does not know.
TAG = re.compile(r'\\tag\{([^}]*)\}')

project = 'mmscfs'
author = 'mmscfs contributors'
project_copyright = author
# Without an import of the package, which comes after the settings below.
version = runpy.run_path(HERE / '../../mmscfs/version.py')['__version__']
release = version

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']
source_url = os.environ.get('MMSCFS_SOURCE_URL', '').rstrip('/')

myst_enable_extensions = ['amsmath', 'dollarmath']
myst_heading_anchors = 4

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
python_maximum_signature_line_length = 72
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Other projects' types, which are not looked up on the web; and how docstrings
# call them.
nitpick_ignore_regex = [
    (
        'py:.*',
        r'(PIL|abc|collections|cv2|_?io|mmcv|mmdet|mmengine|mmpretrain|modelindex|'
        r'nn|np|numpy|pathlib|torch)'
        r'\..*',
    ),
    (
        'py:class',
        'BaseDataset|BaseModel|Config|DataLoader|DataSample|Dataset|ImageFile|'
        'Line|LinearSVC|OptimWrapper|Path|Runner|Tensor|(.*\\.)?TiffLayout|'
        'Track|ndarray|optional',
    ),
]

html_theme = 'furo'
html_title = f'mmscfs {version}'
html_math_renderer = 'mathml'

logger = logging.getLogger(__name__)


def link_sources(app: Sphinx, docname: str, source: list[str]) -> None:
    """Link to the sources at ``source_url``; without one only name them.

    The README, which lies outside, is the page overview here.
    """
    if docname == 'overview':
        text = README.read_text(encoding='utf-8')
        text = text.replace('# mmscfs\n', '# Overview\n', 1)
        # As seen from here; those that begin with # are the page's own.
        text = re.sub(r'\]\((?!#|\w+:)', '](../../', text)
        text = text.replace('](../../docs/en/', '](')
        source[0] = text.replace('](../../docs/', '](../')

    def replace(link: re.Match) -> str:
        text, target = link.groups()
        name, *anchor = target.split('#')
        if name == 'README.md':
            page = os.path.relpath('overview.md', docname + '/..')
            return f'[{text}]({"#".join([page, *anchor])})'
        return f'[{text}]({source_url}/{target})' if source_url else text

    source[0] = OUTSIDE.sub(replace, source[0])


def skip_tuple_fields(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options
) -> bool | None:
    """Leave out what Python says itself of a named tuple's fields."""
    return True if type(member).__name__ == '_tuplegetter' else None


def find_short_name(
    app: Sphinx,
    env: BuildEnvironment,
    node: addnodes.pending_xref,
    content: nodes.Node,
) -> nodes.reference | None:
    """Find what a docstring names without its module."""
    if node['refdomain'] != 'py':
        return None
    domain = env.domains.python_domain
    found = domain.find_obj(env, None, None, node['reftarget'], None, 1)
    places = {(object_.docname, object_.node_id) for _, object_ in found}
    if len(places) != 1:  # unknown, or several: it is warned of
        return None
    docname, node_id = places.pop()
    return make_refnode(app.builder, node['refdoc'], docname, node_id, content)


def to_mathml(self, node: nodes.Node, as_block: bool) -> str:
    """Return a formula as MathML, which browsers draw by themselves."""
    try:
        return tex2mathml(TAG.sub('', node.astext()), as_block=as_block)
    except MathError as error:
        logger.warning('formula: %s', error, location=node)
        return ''


def visit_math(self, node: nodes.math) -> None:
    """Write a formula within the text."""
    self.body.append(to_mathml(self, node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, with its number."""
    # The theme's scroll bar is for long lines, not for high ones.
    style = 'overflow-y: hidden; padding: 0.5em 0'
    self.body.append(self.starttag(node, 'div', CLASS='math', style=style))
    if tag := TAG.search(node.astext()):
        self.body.append(f'<span class="eqno">({tag[1]})</span>')
    self.body.append(to_mathml(self, node, as_block=True))
    self.body.append('</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    """Register the steps above."""
    app.connect('source-read', link_sources)
    app.connect('missing-reference', find_short_name)
    app.connect('autodoc-skip-member', skip_tuple_fields)
    app.add_html_math_renderer(
        'mathml', (visit_math, None), (visit_math_block, None)
    )
    return dict(parallel_read_safe=True, parallel_write_safe=True)
