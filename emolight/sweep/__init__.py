"""Search over a recipe's options with Optuna: every trial is a ``fit`` like any other."""
