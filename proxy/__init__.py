"""refusal-proxy: an async reverse proxy that measures how often a deployed model refuses."""

__version__ = "0.1.0"
