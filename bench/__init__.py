"""The benchmarks: one file a workload. `README.md` says how to read them."""
