"""The classifier: a small encoder that reads an exchange, and the pipeline that trains it.

`classifiers.runtime` is all that the monitor needs (numpy, onnxruntime, tokenizers). Everything that
imports torch stays behind `python -m classifiers train|export`. Nothing here imports `proxy`.
"""
