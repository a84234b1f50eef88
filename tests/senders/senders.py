"""Deliveries as the senders' own libraries make and verify them, for tests/envoy/hooks.rs.

Without an argument: prints a delivery per line, as JSON, signed now. With `verify`: reads such
lines, and prints for each the name of the library that took it, or fails.
"""

import json
import sys
import time
from datetime import datetime, timezone

import standardwebhooks
import stripe
import svix.webhooks
from slack_sdk.signature import SignatureVerifier

BODIES = [
    "{}",
    '{"id":"evt_1","type":"invoice.paid","data":{"amount":1}}\n',
    '{"type":"a","text":"\u00e4\u20ac\U0001f600 \\u0000 \\"."}',
    "payload=%7B%22type%22%3A%22block_actions%22%7D&a=1",
    "x" * 100_000,
]
BASE64 = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def versioned(webhook, prefix):
    def sign(secret, body, now):
        identifier = f"msg_{now}"
        moment = datetime.fromtimestamp(now, tz=timezone.utc)
        signature = webhook(secret).sign(identifier, moment, body)
        return {
            f"{prefix}-id": identifier,
            f"{prefix}-timestamp": str(now),
            f"{prefix}-signature": signature,
        }

    def verify(secret, body, headers):
        webhook(secret).verify(body, headers)

    return sign, verify


def stripe_sign(secret, body, now):
    signature = stripe.WebhookSignature._compute_signature(f"{now}.{body}", secret)
    return {"stripe-signature": f"t={now},v1={signature}"}


def stripe_verify(secret, body, headers):
    stripe.WebhookSignature.verify_header(body, headers["stripe-signature"], secret, 300)


def slack_sign(secret, body, now):
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(now), body=body)
    return {"x-slack-request-timestamp": str(now), "x-slack-signature": signature}


def slack_verify(secret, body, headers):
    if not SignatureVerifier(secret).is_valid_request(body, headers):
        raise ValueError("slack_sdk refuses it")


SENDERS = {
    "standard-webhooks": (BASE64, *versioned(standardwebhooks.Webhook, "webhook")),
    "svix": (BASE64.replace("LaSw", "LbSw"), *versioned(svix.webhooks.Webhook, "svix")),
    "stripe": ("whsec_stripe_secret_for_trials", stripe_sign, stripe_verify),
    "slack": ("8f742231b10e8888abcd99yyyzzz85a5", slack_sign, slack_verify),
}


def main():
    if sys.argv[1:] == ["verify"]:
        for line in sys.stdin:
            delivery = json.loads(line)
            secret, _, verify = SENDERS[delivery["format"]]
            verify(secret, delivery["body"], dict(delivery["headers"]))
            print(delivery["format"])
        return
    now = int(time.time())
    for name, (secret, sign, _) in SENDERS.items():
        for body in BODIES:
            headers = list(sign(secret, body, now).items())
            print(json.dumps({"format": name, "secret": secret, "headers": headers, "body": body}))


main()
