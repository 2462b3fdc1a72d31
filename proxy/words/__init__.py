"""The words floor: exchange, verdict, capture, settings, errors. Imports nothing of ours."""
