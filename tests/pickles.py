# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import io
import pickle

ARRAYS = {
    ('numpy', 'ndarray'),
    ('__builtin__', 'bytearray'),
    ('builtins', 'bytearray'),
    ('_codecs', 'encode'),
}


class ArrayUnpickler(pickle.Unpickler):
    """Restores arrays and plain values, and calls nothing else."""

    def find_class(self, module, name):
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return super().find_class(module, name)


def load_arrays(content):
    """Read a pickle of arrays, with bytes as detectron2 reads them."""
    return ArrayUnpickler(io.BytesIO(content), encoding='latin1').load()
