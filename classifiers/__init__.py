"""Classifiers: the bundle that scores exchanges, and the pipeline that trains it. Never imports proxy."""
