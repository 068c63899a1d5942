# As the authors' release: only the first global view is searched.
_base_ = ['../scfs_r50.py']

model = dict(search_views='first')
