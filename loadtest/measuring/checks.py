"""Whether what was answered is true: jobs are in Redis, as many as were promised, and with the right content."""

import json

from .processes import Failed
from .webhooks import workflow

_OPTIONS = {
    "attempts": 3,
    "backoff": {"type": "exponential", "delay": 1000},
    "removeOnComplete": {"age": 86400, "count": 10000},
    "removeOnFail": {"age": 604800},
}


def fault_of_run(found, jobs, matches):
    """Why a run does not count; None if it does."""
    if found.refused:
        return f"{found.refused} requests were not answered 202"
    if not found.accepted:
        return "nothing was answered"
    least = found.accepted * matches
    most = (found.accepted + found.under_way) * matches
    if not least <= jobs <= most:
        return f"{found.accepted} answers 202, but {jobs} jobs"
    return None


def assert_right_job(server, redis, credential, body, index, owner, user):
    """Sends a webhook that starts workflow `index`, and holds answer and job against what they must be."""
    redis.flush()
    status, answer = server.post(credential, body)
    payload = json.loads(body)
    webhook_id = payload["webhookId"]
    if server.parses:
        del payload["webhookId"]
    expected = {
        "success": True,
        "message": "Webhook accepted",
        "data": {"webhookId": webhook_id, "matchedCount": 1},
    }
    _equal(f"{server.name}'s status", status, 202)
    _equal(f"{server.name}'s answer", json.loads(answer), expected)
    _equal(f"jobs of {server.name}", redis.jobs(), 1)
    job = redis.oldest_job()
    data = json.loads(job["data"])
    request_id, received_at = data.pop("requestId", ""), data.pop("receivedAt", 0)
    _equal(f"length of {server.name}'s request id", len(request_id), 32)
    _equal(f"{server.name} knows when it was", received_at > 1_600_000_000_000, True)
    trigger = {"type": "WebhookTrigger", "nodeIds": ["n1"], "webhookId": webhook_id, "payload": payload}
    workflow_id = workflow(index, owner, webhook_id)["_id"]
    expected = {"workflowId": workflow_id, "organizationId": owner, "userId": user, "trigger": trigger}
    _equal(f"data of {server.name}'s job", data, expected)
    _equal(f"name of {server.name}'s job", job["name"], "workflow")
    options = json.loads(job["opts"])
    # BullMQ's Queue writes this one beside those that it was given.
    options = {name: value for name, value in options.items() if not (name in ("kl", "de", "tm") and value is None)}
    _equal(f"options of {server.name}'s job", options, _OPTIONS)


def _equal(what, found, expected):
    if found != expected:
        raise Failed(f"{what}: {found!r}, where {expected!r} was expected")
