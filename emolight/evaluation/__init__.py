"""Metrics, tables and plots of predictions; knows no model and no audio."""
