"""BullMQ's Python library on a queue: a worker with the flags and reports of worker.mjs, and pause and resume."""

import argparse
import asyncio
import json
import signal

from bullmq import Queue, Worker

flags = argparse.ArgumentParser()
flags.add_argument("command", choices=["work", "pause", "resume"], help="what to do with the queue")
flags.add_argument("--redis", required=True)
flags.add_argument("--queue", required=True)
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
    # What a backoff of another type than BullMQ's own two comes to.
    settings = {"backoffStrategy": lambda *_: 20}
    options = {"connection": flags.redis, "prefix": flags.prefix, "settings": settings}
    worker = Worker(flags.queue, process, options)
    worker.on("completed", lambda job, _result: report("completed", **describe(job)))
    worker.on("failed", lambda job, error: report("failed", **describe(job), failedReason=str(error)))
    worker.on("error", lambda error, *_: report("error", message=str(error)))
    report("ready")
    await closing.wait()
    await worker.close()
    report("closed")


async def on_queue(command):
    queue = Queue(flags.queue, {"connection": flags.redis, "prefix": flags.prefix})
    await getattr(queue, command)()
    await queue.close()
    print(json.dumps({"done": command}))


asyncio.run(work() if flags.command == "work" else on_queue(flags.command))
