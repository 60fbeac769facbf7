"""Many runs through the one road: cross-validation, controls, leak gap, transfer."""
