"""The official SDKs as clients of the real proxy: what they get through it is what they get without it."""
