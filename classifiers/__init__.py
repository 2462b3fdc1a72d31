"""The classifier: a small encoder that reads an exchange, and the pipeline that trains it.

`classifiers.runtime` is all that the monitor needs (numpy, onnxruntime, tokenizers). Everything that
imports torch stays behind `python -m classifiers train|export`. Nothing here imports `proxy`.
"""

import os

# onnxruntime's wheels bring Microsoft's telemetry client, on by default. Promise 4: nobody is told anything.
# It reads this when it is imported, and every import of it in this project comes after this one.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
