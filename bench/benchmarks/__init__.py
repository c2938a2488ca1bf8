"""What pytest collects under `--benchmark-only`: one benchmark of cases, one of training tasks."""
