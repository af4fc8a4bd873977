"""What is measured, and how: a module a benchmark; `matching` and `estimators` serve all."""
