"""Read records and write tables, charts, pages and README blocks. Imports timing, records and cases.

Nothing here imports TensorFlow: a report is drawn on a laptop that has none.
"""
