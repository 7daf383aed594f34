"""What Hookgate is measured along: each curve with its points."""

import random
from dataclasses import dataclass, field

from . import shards, webhooks
from .generators import Webhook
from .webhooks import Signer, organization, webhook

CONNECTIONS = 64
# Different requests in the curves over what is held in memory, so that all of it is asked for.
_REQUESTS = 10_000


@dataclass
class Point:
    x: object
    requests: list
    """Pairs of credential and body, sent in turn."""
    workflows: object
    """The file that holds them."""
    series: str = ""
    connections: int = CONNECTIONS
    matches: int = 1
    settings: dict = field(default_factory=dict)
    round_trip: float = None
    """Milliseconds to Redis, by a proxy; without it directly."""
    shards: int = None
    """So many Redis servers with a queue each, instead of the one of all curves."""


class Data:
    """Writes what the points need into a directory, when a curve has its turn."""

    def __init__(self, directory):
        self.directory = directory

    def workflows(self, name, documents, users=()):
        path = self.directory / f"{name}.json"
        webhooks.write_workflows(path, documents, users)
        return path

    def webhook(self, point):
        return Webhook(self.directory, "point", point.requests)


def matches(data, _options):
    """One webhook, and so many workflows that it starts."""
    counts = [1, 10, 100, 500]
    owner = organization(0)
    documents = (
        webhooks.workflow(count * 1000 + index, owner, webhook(count)) for count in counts for index in range(count)
    )
    file = data.workflows("matches", documents)
    token = Signer().token(owner)
    return [Point(count, [(token, webhooks.body(webhook(count)))], file, matches=count) for count in counts]


def bodies(data, _options):
    token = Signer().token(organization(0))
    file = data.workflows("bodies", webhooks.workflows(1000, 10))
    sizes = [150, 4 << 10, 64 << 10, 1 << 20]
    return [Point(size, [(token, webhooks.body(webhook(0), size))], file) for size in sizes]


def triggers(data, options):
    """In 10 organizations; ten thousand of them are asked for."""
    counts = [1000, 10_000, 100_000, 1_000_000, *([5_000_000] if options.five_million else [])]
    points = []
    for count in counts:
        file = data.workflows(f"triggers-{count}", webhooks.workflows(count, 10))
        points.append(Point(count, _spread_out(count, 10, _REQUESTS), file))
    return points


def organizations(data, _options):
    """Of 100,000 workflows; each calls with a token of its own."""
    total = 100_000
    points = []
    for count in [1, 10, 100, 1000, 10_000, 100_000]:
        file = data.workflows(f"organizations-{count}", webhooks.workflows(total, count))
        points.append(Point(count, _spread_out(total, count, max(count, _REQUESTS)), file))
    return points


def _spread_out(workflows, organizations, count):
    """Requests of all organizations in turn, each for any of its workflows; the same ones in every run."""
    signer = Signer()
    tokens = [signer.token(organization(index)) for index in range(organizations)]
    choice = random.Random(1)
    requests = []
    for place in range(count):
        owner = place % organizations
        index = owner + organizations * choice.randrange(workflows // organizations)
        requests.append((tokens[owner], webhooks.body(webhook(index))))
    choice.shuffle(requests)
    return requests


def credentials(data, _options):
    file = data.workflows("credentials", webhooks.workflows(1000, 10), [webhooks.user(organization(0))])
    body = webhooks.body(webhook(0))
    points = []
    for algorithm in ["HS256", "RS256", "ES256"]:
        signer = Signer(algorithm, data.directory)
        jwt = {"algorithms": [algorithm]}
        if signer.public_key:
            jwt |= {"secrets": [], "public_key_files": [str(signer.public_key)]}
        token = signer.token(organization(0))
        points.append(Point(algorithm, [(token, body)], file, settings={"auth.jwt": jwt}))
    return [*points, Point("API key", [(webhooks.API_KEY, body)], file)]


def workers(data, _options):
    request = (Signer().token(organization(0)), webhooks.body(webhook(0)))
    file = data.workflows("workers", webhooks.workflows(1000, 10))
    return [
        Point(
            count, [request], file, f"{connections} connections", connections, settings={"server": {"workers": count}}
        )
        for count in [1, 2]
        for connections in [8, 64, 512]
    ]


def round_trips(data, _options):
    request = (Signer().token(organization(0)), webhooks.body(webhook(0)))
    file = data.workflows("round-trips", webhooks.workflows(1000, 10))
    return [
        Point(milliseconds, [request], file, f"{connections} connections", connections, round_trip=milliseconds)
        for milliseconds in [0, 1, 5]
        for connections in [64, 512]
    ]


def shards_by_round_trip(data, options):
    file, requests = shards.requests(options.program, data.directory, 4)
    return [
        Point(milliseconds, requests, file, f"{connections} connections", connections, round_trip=milliseconds, shards=4)
        for milliseconds in [1, 5, 20]
        for connections in [64, 512]
    ]


ALL = {
    "matches": matches,
    "bodies": bodies,
    "triggers": triggers,
    "organizations": organizations,
    "credentials": credentials,
    "workers": workers,
    "round-trips": round_trips,
    "shards": shards_by_round_trip,
}
