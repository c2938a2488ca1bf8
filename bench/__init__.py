"""How recurrent cells are measured: cases, proofs, timing, records, charts.

Arrows run one way: benchmarks -> plugin -> measure, verify -> case, records. Charts, summary and README
tables read records only and never import TensorFlow; what knows TensorFlow stands in `runtime`.
"""
