"""BullMQ's Python library: a worker with the flags and reports of worker.mjs, and calls with the lines of calls.mjs.

python.py work --redis URL --queue NAME [--prefix PREFIX] [--fail-first N]
python.py calls
"""

import argparse
import asyncio
import json
import os
import signal
import sys

from bullmq import Queue, Worker

flags = argparse.ArgumentParser()
flags.add_argument("command", choices=["work", "calls"])
flags.add_argument("--redis")
flags.add_argument("--queue")
flags.add_argument("--prefix", default="bull")
flags.add_argument("--fail-first", type=int, default=0)
flags = flags.parse_args()


def report(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def describe(job):
    return {"id": job.id, "name": job.name, "data": job.data, "opts": job.opts, "attemptsMade": job.attemptsMade}


async def process(job, _token):
    if job.attemptsMade < flags.fail_first:
        raise RuntimeError(f"attempt {job.attemptsMade + 1} fails as asked")


async def work():
    closing = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, closing.set)
    # The delay of a custom backoff strategy, in milliseconds.
    settings = {"backoffStrategy": lambda *_: 20}
    options = {"connection": flags.redis, "prefix": flags.prefix, "settings": settings}
    worker = Worker(flags.queue, process, options)
    worker.on("completed", lambda job, _result: report("completed", **describe(job)))
    worker.on("failed", lambda job, error: report("failed", **describe(job), failedReason=str(error)))
    worker.on("error", lambda error, *_: report("error", message=str(error)))
    report("ready")
    await closing.wait()
    # A close right after the last job does not always end (about 2 of 80), and it shields itself
    # from being cancelled. Nothing is lost then.
    await asyncio.wait({asyncio.ensure_future(worker.close())}, timeout=5)
    report("closed")
    os._exit(0)


async def calls():
    for line in sys.stdin:
        call = json.loads(line)
        queue = Queue(call["queue"], {"connection": call["redis"]})
        await getattr(queue, call["call"])(*call["with"])
        await queue.close()
        print("{}", flush=True)


asyncio.run(work() if flags.command == "work" else calls())
