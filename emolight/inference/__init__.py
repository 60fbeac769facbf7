"""Use a trained model: predict, explain, export, demo."""
