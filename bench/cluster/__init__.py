"""Spread a run's comparisons over the workers of a Dask cluster: one at a time on each, both sides together.

`distributed` schedules. `Dispatcher` is the client's side and writes what arrives; `station` is the worker's.
Imports the rooms up to runner.
"""
