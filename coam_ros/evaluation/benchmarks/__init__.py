"""What is measured, and how: one module a benchmark, one estimator for all."""
