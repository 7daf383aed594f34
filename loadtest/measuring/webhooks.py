"""What is sent and what it starts: workflows of many organizations, credentials, bodies."""

import base64
import hashlib
import hmac
import json
import random
import subprocess
import time

SECRET = "a-secret-for-load-tests-of-sixty-four-characters-and-no-other-use"
WEBHOOK_PATH = "/api/webhook/workflow"
BODY_BYTES = 150

USER = "user_1"
API_KEY = "an-api-key-for-load-tests"


def organization(index):
    return f"org_{index:06}"


def webhook(index):
    return f"wh_{index:06}"


def workflow(index, owner, webhook_id):
    return {
        "_id": f"wf_{index:06}",
        "organizationId": owner,
        "enabled": True,
        "nodes": [
            {"id": "n1", "type": "WebhookTrigger", "data": {"webhookId": webhook_id}},
            {"id": "n2", "type": "SendMessage", "data": {"text": "Hello"}},
        ],
    }


def user(owner):
    """One who may call by API key."""
    return {"_id": USER, "organizationId": owner, "apiKey": API_KEY, "enabled": True}


def workflows(count, organizations):
    """Each with a webhook of its own, shared out evenly."""
    return (workflow(index, organization(index % organizations), webhook(index)) for index in range(count))


def write_workflows(path, documents, users=()):
    """As the file that Hookgate and its peers read; one by one, since there may be millions."""
    with open(path, "w") as file:
        file.write('{"workflows":[')
        for index, document in enumerate(documents):
            file.write(",\n" if index else "\n")
            file.write(json.dumps(document, separators=(",", ":")))
        file.write('],"users":')
        json.dump(list(users), file)
        file.write("}\n")


def body(webhook_id, size=BODY_BYTES):
    """A JSON object of so many bytes that says more than its webhook."""
    members = {"webhookId": webhook_id, "source": "website", "lead": {"name": "Alex Nguyen", "note": ""}}
    empty = json.dumps(members, separators=(",", ":"))
    members["lead"]["note"] = "x" * (size - len(empty))
    return json.dumps(members, separators=(",", ":"))


# Sizes in bytes, and how many of twenty bodies have them: messages and forms, payments, invoices, orders and pushes,
# pull requests. The sizes are those of public examples of providers. No provider publishes shares: these are estimates.
MIX = {512: 6, 2048: 6, 4096: 4, 8192: 3, 25600: 1}


def mixed_bodies(webhook_id):
    """Bodies as providers send them, in an order that is the same in every run."""
    chance = random.Random(20)
    bodies = [realistic_body(webhook_id, size, chance) for size, count in MIX.items() for _ in range(count)]
    chance.shuffle(bodies)
    return bodies


def realistic_body(webhook_id, size, chance):
    """An envelope and an object with records, as many as fit, so that there are names, numbers and nesting to parse."""
    subject = {"id": _hex(chance), "status": "open", "total": 129.9, "owner": None, "description": "", "items": []}
    event = {"webhookId": webhook_id, "event": "order.updated", "created": 1767225600, "test": False, "object": subject}

    def missing():
        return size - len(json.dumps(event, separators=(",", ":")))

    while missing() > 0:
        subject["items"].append(_record(chance))
    subject["items"].pop()
    subject["description"] = "".join(chance.choices("abcdefgh ijklmnop qrstuvw ", k=missing()))
    return json.dumps(event, separators=(",", ":"))


def _record(chance):
    serial = chance.randrange(10**9)
    return {
        "id": serial,
        "key": _hex(chance),
        "name": f"Item {serial % 1000}",
        "price": {"amount": serial % 100_000, "currency": "EUR", "tax_rate": 0.19},
        "url": f"https://shop.example/api/v1/items/{serial}",
        "updated_at": "2026-01-01T12:00:00Z",
        "tags": ["new", "gift"],
        "discount": None,
        "shipped": serial % 2 == 0,
    }


def _hex(chance):
    return f"{chance.getrandbits(96):024x}"


class Signer:
    """Makes tokens of one algorithm. What it needs is made beforehand, by `openssl` unless it is HS256."""

    def __init__(self, algorithm="HS256", directory=None):
        self.algorithm = algorithm
        self.key = None
        self.public_key = None
        if algorithm != "HS256":
            self.key = directory / f"{algorithm}.pem"
            self.public_key = directory / f"{algorithm}.public.pem"
            kind = {
                "RS256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                "ES256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            }[algorithm]
            _openssl("genpkey", "-algorithm", *kind, "-out", self.key)
            _openssl("pkey", "-in", self.key, "-pubout", "-out", self.public_key)

    def token(self, owner):
        now = int(time.time())
        claims = {"id": USER, "organizationId": owner, "iat": now, "exp": now + 24 * 3600}
        head = {"alg": self.algorithm, "typ": "JWT"}
        signed = ".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
        return f"{signed}.{_base64(self._signature(signed.encode()))}"

    def _signature(self, signed):
        if self.algorithm == "HS256":
            return hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
        signature = _openssl("dgst", "-sha256", "-sign", self.key, input=signed)
        return _fixed_length(signature) if self.algorithm == "ES256" else signature


def _openssl(*arguments, input=None):
    done = subprocess.run(["openssl", *map(str, arguments)], input=input, capture_output=True, check=True)
    return done.stdout


def _fixed_length(der):
    """The two numbers of an ECDSA signature, 32 bytes each, as tokens have them (RFC 7518 3.4)."""
    numbers, position = [], 2
    for _ in range(2):
        length = der[position + 1]
        numbers.append(int.from_bytes(der[position + 2 : position + 2 + length], "big"))
        position += 2 + length
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
