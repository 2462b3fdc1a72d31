"""Captures a second that one monitor scores with the real bundle: `python -m tests.flows.throughput [N]`."""

from __future__ import annotations

import asyncio
import sys
import time
from random import Random

from proxy.resources.model import Model
from tests.flows.captures import House, capture, choice, request_body, response_body

REFUSAL = "I'm sorry, but I can't help with that request."
SENTENCE = (
    "Mix the flour with the water, knead it for ten minutes and let the dough rest until it has doubled. "
)


async def measure(count: int) -> str:
    house = House(limits={"queue_bytes": 1 << 30, "queue_captures": count})
    house.model = house.monitor._model = Model(house.log)
    house.monitor.start()
    house.monitor.offer(capture(), "warm")
    await asyncio.to_thread(house.recorded.wait, 1)
    rng = Random(1)
    texts = [REFUSAL if rng.random() < 0.2 else SENTENCE * rng.randrange(1, 40) for _ in range(count)]
    began, cpu = time.perf_counter(), time.process_time()
    for number, text in enumerate(texts):
        body = response_body(choice(text))
        house.monitor.offer(
            capture(request=request_body(f"How do I bake bread number {number}?"), response=body), number
        )
    offered = time.perf_counter() - began
    await house.monitor.stop(600)
    took = time.perf_counter() - began
    scored = house.value("refusal_exchanges_total") - 1
    return (
        f"{scored:.0f} captures in {took:.2f} s: {scored / took:.0f}/s, "
        f"{(time.process_time() - cpu) / scored * 1e3:.2f} ms of CPU each; offering took {offered:.2f} s; "
        f"classifier {house.model.version or house.model.state}"
    )


if __name__ == "__main__":
    print(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
