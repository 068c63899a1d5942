# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.

# The batch norm of vectors for that of maps, by the names in configs.
NORM_1D = {'BN': 'BN1d', 'BN2d': 'BN1d', 'SyncBN': 'SyncBN'}
