//! Local replies with their challenges and bodies, from the catalogue of reasons.

use super::RequestContext;
use crate::breaker::MAX_PAUSE;
use crate::http::LocalReply;
use crate::policy::{Access, AnswerFormat};
use crate::refusal::{Acknowledgement, Answer, Challenge, Denial, Outage, Reason, Refusal, Status, Unusable};
use std::time::Duration;

/// The local reply to a refused request.
pub(super) fn respond(refusal: &Refusal, context: &RequestContext) -> LocalReply {
    let answer = &Answer { status: status(refusal, context), ..*refusal.answer() };
    let mut headers = vec![("cache-control".to_owned(), "no-store".to_owned())];
    if let Some(challenge) = challenge(answer, context) {
        headers.push(("www-authenticate".to_owned(), challenge));
    }
    if answer.status.code == 503 {
        headers.push(("retry-after".to_owned(), retry_after(refusal).to_string()));
    }
    if context.grpc || context.grpc_web {
        headers.push(("grpc-status".to_owned(), answer.status.grpc.to_string()));
        headers.push(("grpc-message".to_owned(), answer.message.to_owned()));
    }
    let body = if context.grpc {
        // Envoy's `grpc_web` filter, where it stands in front, has made this of a gRPC-Web request.
        // It replaces the status of an answer that has a body by one that it makes of the 400.
        String::new()
    } else {
        let (media_type, body) = match refusal {
            Refusal::Acknowledgement(Acknowledgement::Ready) => ("text/plain", answer.message.to_owned()),
            Refusal::Acknowledgement(Acknowledgement::Challenge) => {
                ("text/plain", context.challenge.as_deref().unwrap_or_default().to_owned())
            }
            _ => body(answer, context.policy.format),
        };
        headers.push(("content-type".to_owned(), media_type.to_owned()));
        // For HEAD too: the host omits the content (RFC 9110 section 9.3.2), and keeps the headers
        // that describe it.
        body
    };
    LocalReply {
        status: answer.status.code,
        headers,
        body,
        details: details(refusal.reason()),
        grpc_status: context.grpc.then_some(answer.status.grpc),
    }
}

/// The catalogue's status, or the one that the webhook configures in its place.
fn status(refusal: &Refusal, context: &RequestContext) -> Status {
    let own = refusal.answer().status;
    let code = match (refusal, context.webhook()) {
        (Refusal::Denial(Denial::InvalidSignature | Denial::StaleTimestamp), Some(webhook)) => {
            webhook.signature_status
        }
        (Refusal::Denial(Denial::Replayed), Some(webhook)) => {
            webhook.replay.as_ref().map_or(own.code, |replay| replay.status)
        }
        _ => own.code,
    };
    if code == own.code { own } else { Status::of(code) }
}

/// The local reply if even the policy is unknown.
pub(super) fn undecidable() -> LocalReply {
    let refusal = Refusal::from(Unusable::Internal);
    let answer = refusal.answer();
    let (media_type, body) = body(answer, AnswerFormat::Json);
    LocalReply {
        status: answer.status.code,
        headers: [("cache-control", "no-store"), ("retry-after", "1"), ("content-type", media_type)]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into(),
        body,
        details: details(refusal.reason()),
        grpc_status: None,
    }
}

/// The value of `%RESPONSE_CODE_DETAILS%`.
fn details(reason: Reason) -> String {
    format!("avnology_gate{{{}}}", reason.id())
}

fn challenge(answer: &Answer, context: &RequestContext) -> Option<String> {
    let realm = quoted(&context.policy.realm);
    match answer.challenge {
        Challenge::None => None,
        Challenge::Bearer => Some(format!("Bearer realm={realm}")),
        Challenge::BearerError => Some(format!("Bearer realm={realm}, error={}", quoted(answer.error))),
        Challenge::BearerScope => {
            let scopes = match context.route().map(|r| &r.access) {
                Some(Access::Token(rules)) => rules.requirement.scopes().collect::<Vec<_>>().join(" "),
                _ => String::new(),
            };
            Some(format!("Bearer realm={realm}, error={}, scope={}", quoted(answer.error), quoted(&scopes)))
        }
        // A challenge says what a 401 asks for (RFC 9110 section 11.6.1).
        Challenge::Signature if answer.status.code != 401 => None,
        Challenge::Signature => Some(format!("Signature realm={realm}")),
    }
}

/// A quoted-string (RFC 9110 section 5.6.4) of visible ASCII and spaces; the configuration accepts
/// nothing else.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars().filter(|c| (' '..='~').contains(c)) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn body(answer: &Answer, format: AnswerFormat) -> (&'static str, String) {
    let Answer { status, error, message, .. } = *answer;
    // Serializing strings and a number cannot fail.
    match format {
        AnswerFormat::Json => {
            ("application/json", serde_json::to_string(&Body { error, message }).unwrap_or_default())
        }
        AnswerFormat::Problem => {
            let (title, status) = (status.phrase, status.code);
            let problem = Problem { kind: "about:blank", title, status, detail: message, error };
            ("application/problem+json", serde_json::to_string(&problem).unwrap_or_default())
        }
    }
}

#[derive(serde::Serialize)]
struct Body {
    error: &'static str,
    message: &'static str,
}

/// RFC 9457 section 4.2.1: with `about:blank` the title is the status's own phrase.
#[derive(serde::Serialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'static str,
    error: &'static str,
}

/// Whole seconds, at least one: the provider's own `Retry-After` on 429, at most [`MAX_PAUSE`], or
/// the remaining time of a breaker or a budget.
fn retry_after(refusal: &Refusal) -> u64 {
    let wait = match refusal {
        Refusal::Unusable(Unusable::RateLimited(Some(wish))) => (*wish).min(MAX_PAUSE),
        Refusal::Unusable(
            Unusable::NewTokenBudget(wait) | Unusable::RefreshBudget(wait) | Unusable::PermissionBudget(wait),
        )
        | Refusal::Outage(Outage::CircuitOpen(wait)) => *wait,
        _ => Duration::ZERO,
    };
    let begun = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(begun).max(1)
}
