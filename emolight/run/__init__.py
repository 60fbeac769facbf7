"""One run and its folder: the command line of fit, validate and test, and everything that they keep."""
