"""Hold the benchmarks that pytest collects under `--benchmark-only`: one of cases, one of training tasks."""
