"""`python -m bench realism`: instruments written apart from the estimator, with the faults of real ones."""
