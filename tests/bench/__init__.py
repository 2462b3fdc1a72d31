"""`make bench`: what the proxy costs, beside a bare aiohttp proxy in the same run."""
