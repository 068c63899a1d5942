# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What can be wrong with annotation files, and what is said about it.

``COCO`` are texts of a COCO file, made of a good one's content; ``VOC`` those
of an XML file, made of a good one's text. Each with words of the error; with
none, the file is fine or the entry is left out, as the guide says.
"""

import copy
import json
from collections.abc import Callable
from typing import NamedTuple


class Case(NamedTuple):
    name: str
    make: Callable[..., str]
    words: tuple[str, ...]


def changed(part: str, **values) -> Callable[[dict], str]:
    """Return what sets values of a part's second entry."""

    def make(content: dict) -> str:
        content = copy.deepcopy(content)
        content[part][1].update(values)
        return json.dumps(content)

    return make


def without(part: str, key: str) -> Callable[[dict], str]:
    def make(content: dict) -> str:
        content = copy.deepcopy(content)
        del content[part][1][key]
        return json.dumps(content)

    return make


def with_part(part: str, value) -> Callable[[dict], str]:
    return lambda content: json.dumps({**content, part: value})


def mask(value) -> Callable[[dict], str]:
    return changed('annotations', segmentation=value)


def box(*value) -> Callable[[dict], str]:
    return changed('annotations', bbox=list(value))


def digits(content: dict) -> str:
    """A number that Python refuses to read."""
    text = changed('annotations', area=123456789)(content)
    return text.replace('123456789', '9' * 5000)


def packed(text: str) -> Callable[[dict], str]:
    """Run lengths as COCO's compressed text."""
    return mask(dict(size=[40, 60], counts=text))


def zigzag(sides: int) -> Callable[[dict], str]:
    """A polygon of that many sides of 1200 px."""
    return mask([[-600, 2, 600, 2] * (sides // 2)])


ENTRY = ("'annotations'", 'not an object')
SQUARE = [2, 2, 9, 2, 9, 9, 2, 9]
# Of an image of 60 x 40 px.
COCO = [
    Case('empty file', lambda c: '', ('line 1',)),
    Case('cut off', lambda c: json.dumps(c)[:-9], ('not JSON', 'line 1')),
    Case('page', lambda c: '<html>404</html>', ('not JSON', 'line 1')),
    Case('deep', lambda c: '[' * 10**6, ('nested too deep',)),
    Case('digits', digits, ('not JSON', '4300')),
    Case('list', lambda c: '[]', ('holds a list',)),
    Case('no images', with_part('images', []), ('no images',)),
    Case('no categories', with_part('categories', None), ('no categories',)),
    Case('images as object', with_part('images', {'a': 1}), ('is a dict',)),
    Case('numbers', with_part('annotations', [1, 2]), ENTRY),
    Case('nulls', with_part('annotations', [None]), ENTRY),
    Case(
        'annotation without id', without('annotations', 'id'), ('without id',)
    ),
    Case('no area', without('annotations', 'area'), ('without area',)),
    Case('no bbox', without('annotations', 'bbox'), ('without bbox',)),
    Case('list as id', changed('images', id=[1]), ('id=[1]',)),
    Case('object as id', changed('categories', id={}), ('id={}',)),
    Case('name is a number', changed('categories', name=5), ('name=5',)),
    Case('file is a number', changed('images', file_name=5), ('file_name=5',)),
    Case('width is a text', changed('images', width='60'), ("width='60'",)),
    Case('width 0', changed('images', width=0), ('width=0', '> 0')),
    Case(
        'huge',
        changed('images', width=2**20, height=513),
        ('more than masks',),
    ),
    Case(
        'height NaN', changed('images', height=float('nan')), ('height=nan',)
    ),
    Case('area is a text', changed('annotations', area='9'), ("area='9'",)),
    Case('two images', changed('images', id=0), ('id=0 twice', "'1.jpg'")),
    Case('two boxes', changed('annotations', id=1), ('id=1 twice',)),
    Case('two categories', changed('categories', id=0), ('id=0 twice',)),
    Case('two names', changed('categories', name='cat'), ("'cat' twice",)),
    Case('box is text', changed('annotations', bbox='1234'), ('[x, y, wid',)),
    Case('box of three', box(5, 6, 20), ('[x, y, width', "'1.jpg'")),
    Case('box of five', box(5, 6, 20, 3, 1), ('[x, y, width',)),
    Case('box of text', box(5, 6, '20', 3), ('finite numbers',)),
    Case('x NaN', box(float('nan'), 6, 20, 3), ('finite numbers',)),
    Case('width infinite', box(5, 6, float('inf'), 3), ('finite numbers',)),
    Case('box < 0', box(5, 6, -20, 3), ('negative size',)),
    Case('box outside', box(61, 6, 20, 3), ('outside of the image (60x40)',)),
    Case('box of no area', box(5, 6, 0, 3), ()),
    Case('area 0', changed('annotations', area=0), ()),
    Case('crowd', changed('annotations', iscrowd=1), ()),
    Case('iscrowd null', changed('annotations', iscrowd=None), ('iscrowd N',)),
    Case(
        'iscrowd text', changed('annotations', iscrowd='0'), ("iscrowd '0'",)
    ),
    Case('no iscrowd', without('annotations', 'iscrowd'), ('crowd missing',)),
    Case('unknown category', changed('annotations', category_id=77), ()),
    Case('unknown image', changed('annotations', image_id=77), ()),
    Case('polygon', mask([SQUARE]), ()),
    Case('no polygons', mask([]), ()),
    Case('polygon of two points', mask([[2, 2, 9, 9]]), ()),
    Case('odd polygon', mask([SQUARE, SQUARE[1:]]), ('7 coordinates',)),
    Case('polygon NaN', mask([[float('nan'), *SQUARE[1:]]]), ('not finite',)),
    Case('polygon of points', mask([[[2, 2], [9, 2]]]), ('not finite',)),
    *(
        Case(f'polygon up to {x}', mask([[x, *SQUARE[1:]]]), words)
        for x, words in {
            -5.5: (),
            66: (),
            600: (),  # ten sides
            -600: (),
            601: ('coordinate 601,', 'far outside', '(60x40)'),
            -601: ('coordinate -601,', 'far outside'),
            1e8: ('far outside',),
            1e300: ('coordinate 1e+300,', 'far outside'),
            10**400: ('not finite',),
        }.items()
    ),
    # 2**28 / 1200 = 223696.2...
    Case('polygon of too many points', zigzag(223_700), ('223700 points',)),
    Case('polygon not in a list', mask(SQUARE), ('not a list of polygons',)),
    Case('mask is text', mask('2,2,9,2'), ('neither polygons nor',)),
    Case('runs', mask(dict(size=[40, 60], counts=[2395, 5])), ()),
    # 2395 = (27, 10, 2) in fives of bits, from the lowest on; 27 + 32 is "k"
    # from "0" on, 10 + 32 is "Z".
    Case('packed runs', packed('kZ25'), ()),
    Case('packed runs too long', packed('kZ26'), ('2401 pixels in all',)),
    Case('packed run of zero', packed('0'), ('of 0 pixels in all',)),
    Case('packed runs < 0', packed('Z[2F'), ('pixels in all',)),
    Case('packed runs cut off', packed('kZ'), ('not run lengths',)),
    Case('packed garbage', packed('garbage!!!'), ('not run lengths',)),
    Case(
        'packed runs of more bits',
        packed('kZRPPPPPPP05'),
        ('not run lengths',),
    ),
    Case('packed runs, no text', packed('kZ25\ud800'), ('not run lengths',)),
    Case(
        'runs too long',
        mask(dict(size=[40, 60], counts=[2395, 10**9])),
        ('1000002395 pixels',),
    ),
    Case(
        'runs < 0',
        mask(dict(size=[40, 60], counts=[2410, -10])),
        ('not run lengths',),
    ),
    Case('runs lost', mask(dict(size=[40, 60])), ('not run lengths',)),
    Case(
        'runs of another size',
        mask(dict(size=[60, 40], counts=[2400])),
        ('[60, 40] instead', '[40, 60]'),
    ),
    *(
        Case(f'path {name!r}', changed('images', file_name=name), words)
        for name, words in {
            '/etc/passwd': ("'/etc/passwd'", 'not a path below'),
            '../../etc/passwd': ("'../../etc/passwd'", 'not a path below'),
            '1.jpg\0': ('not a path below',),
            'http://127.0.0.1:9/1.jpg': ('not a path below', '"://"'),
            '': ("''", 'not a path below'),
            'gone.jpg': ('gone.jpg', 'do not exist'),
        }.items()
    ),
]


def swapped(old: str, new: str) -> Callable[[str], str]:
    """Return what replaces a part of the good text."""

    def make(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return make


def after(head: str) -> Callable[[str], str]:
    """Return what puts a document type before the good text."""
    return lambda text: head + text.replace('dog', '&x;')


LAUGHS = (
    '<!DOCTYPE annotation [<!ENTITY x0 "ha">{}<!ENTITY x "&x30;">]>'.format(
        ''.join(f'<!ENTITY x{i + 1} "{f"&x{i};" * 10}">' for i in range(30))
    )
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
ELSEWHERE = '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">'
PARAMETER = '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]>'
# An object of class dog with the box (5, 2, 60, 30), of an image of 60x40.
VOC = [
    Case('empty file', lambda t: '', ('not XML',)),
    Case('cut off', lambda t: t[:90], ('damaged', 'line 1')),
    Case('text', lambda t: 'no annotation', ('not XML', 'line 1')),
    Case('laughs', after(LAUGHS), ('document type',)),
    Case('file', after(OUTSIDE), ('document type',)),
    Case('definitions', after(ELSEWHERE), ('document type',)),
    Case('parameters', after(PARAMETER), ('document type',)),
    Case('unknown entity', swapped('dog', '&x;'), ('undefined entity',)),
    Case(
        'unknown encoding',
        lambda t: '<?xml version="1.0" encoding="x-none"?>' + t,
        ('not XML', 'encoding'),
    ),
    Case('deep', lambda t: '<a>' * 10**5, ('not XML',)),
    Case(
        'deep and whole',
        lambda t: t.replace('dog', '<a>' * 10**5 + '</a>' * 10**5),
        ('object 1', 'no name'),
    ),
    Case('huge', lambda t: t + ' ' * 2**22, ('larger than',)),
    Case('no name', swapped('<name>dog</name>', ''), ('object 1', 'no name')),
    Case('empty name', swapped('dog', ''), ('object 1', 'no name')),
    Case('no box', swapped('bndbox', 'box'), ('four numbers', "'dog'")),
    Case('no side', swapped('<ymin>2</ymin>', ''), ('four numbers',)),
    Case('side of text', swapped('<ymin>2', '<ymin>two'), ('four numbers',)),
    Case('side NaN', swapped('<ymin>2', '<ymin>nan'), ('finite numbers',)),
    Case('side infinite', swapped('>60</xmax', '>inf</xmax'), ('finite num',)),
    Case('side enormous', swapped('>60</xmax', '>9e999</xmax'), ('finite',)),
    Case('empty', swapped('>60</xmax', '>5</xmax'), ('is empty',)),
    Case('turned round', swapped('>60</xmax', '>4</xmax'), ('is empty',)),
    Case('beyond', swapped('<ymin>2', '<ymin>-9'), ()),
    Case(
        'outside',
        lambda t: t.replace('<xmin>5', '<xmin>61').replace(
            '>60</xmax', '>70</xmax'
        ),
        ('outside of the image (60x40)',),
    ),
    Case('no size', swapped('size>', 'sizes>'), ()),
    Case('no width', swapped('<width>60</width>', ''), ('size [None',)),
    Case('width of text', swapped('<width>60', '<width>w'), ("size ['w'",)),
    Case('width 0', swapped('<width>60', '<width>0'), ("size ['0'",)),
    Case(
        'difficult',
        swapped('<bndbox>', '<difficult>maybe</difficult><bndbox>'),
        ("difficult='maybe'",),
    ),
    *(
        Case(
            f'difficult {text[:5]}',
            swapped('<bndbox>', f'<difficult>{text}</difficult><bndbox>'),
            words,
        )
        for text, words in {
            ' 1 ': (),
            '\xb2': ("difficult='\xb2'",),  # a digit, but no number
            '1' * 5000: ('must be 0 or 1',),  # more digits than Python reads
            '-1': ("difficult='-1'",),
            '': ("difficult=''",),
        }.items()
    ),
]
