"""What no schema can say of a webhookId and of an address, for schemathesis: which addresses exist, and that a webhookId
has at most 256 bytes, where JSON Schema counts characters.

The schema of tether.yaml gives it no bounds at all; what is taken is at most 256 bytes. A request that is within a schema
and outside of these is left out; one that is to be refused is sent.
"""

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return True
    webhook_id = case.body.get("webhookId") if isinstance(case.body, dict) else None
    return not isinstance(webhook_id, str) or len(webhook_id.encode(errors="surrogatepass")) <= 256


@schemathesis.hook
def before_call(context, case, kwargs):
    """A valid request to an address goes to the one that exists."""
    is_valid = case.meta is None or not case.meta.generation.mode.is_negative
    if is_valid and "{organization}" in case.path:
        case.path_parameters = {"organization": "org_a", "webhookId": "wh_in"}
