"""One page on a run, a cross-validation or an ensemble, and the page system that the sweep's page uses, too."""
