"""What is measured, and how: one module a benchmark, one estimator and one statistics for all."""
