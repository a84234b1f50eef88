//! `webhooks`.

use super::provider::{SecretSource, secret_source};
use crate::config::fields::webhook::{self as fields, custom, events, replay};
use crate::config::reader::{Section, TextsByName};
use crate::webhook::format::{Encoding, Format};
use crate::webhook::key::KeyEncoding;
use crate::webhook::mac::Algorithm;
use crate::webhook::replay::ReplayBy;
use std::time::Duration;

#[derive(Debug)]
pub(in crate::config) struct Webhook {
    pub(in crate::config) at: String,
    pub(in crate::config) name: String,
    /// An inner `None` is `custom`.
    pub(in crate::config) format: Option<Option<&'static Format>>,
    pub(in crate::config) custom: Option<Custom>,
    pub(in crate::config) secrets: Vec<SecretSource>,
    pub(in crate::config) allow_short_key: Option<bool>,
    pub(in crate::config) body_only: Option<bool>,
    pub(in crate::config) tolerance: Option<Duration>,
    pub(in crate::config) signature_status: Option<u32>,
    pub(in crate::config) events: Option<Events>,
    pub(in crate::config) replay: Option<Replay>,
    /// Rules by type, or `Err` for a flag.
    pub(in crate::config) evict: Option<Result<TextsByName, bool>>,
    pub(in crate::config) max_body_bytes: Option<u32>,
    pub(in crate::config) body_timeout: Option<Duration>,
    pub(in crate::config) trust_source_address: Option<bool>,
    pub(in crate::config) shadow: Option<bool>,
    pub(in crate::config) enforce_percent: Option<u32>,
}

#[derive(Debug)]
pub(in crate::config) struct Custom {
    pub(in crate::config) at: String,
    pub(in crate::config) signature_header: Option<String>,
    pub(in crate::config) prefix: Option<String>,
    pub(in crate::config) algorithm: Option<Algorithm>,
    pub(in crate::config) encoding: Option<Encoding>,
    pub(in crate::config) key: Option<KeyEncoding>,
    pub(in crate::config) content: Option<String>,
    pub(in crate::config) timestamp_header: Option<String>,
    pub(in crate::config) id_header: Option<String>,
}

#[derive(Debug)]
pub(in crate::config) struct Replay {
    pub(in crate::config) at: String,
    pub(in crate::config) window: Option<Duration>,
    pub(in crate::config) by: Option<ReplayBy>,
    pub(in crate::config) status: Option<u32>,
    pub(in crate::config) slots: Option<u32>,
}

#[derive(Debug)]
pub(in crate::config) struct Events {
    pub(in crate::config) at: String,
    pub(in crate::config) kind: Option<Vec<String>>,
    pub(in crate::config) id: Option<Vec<String>>,
    pub(in crate::config) allow: Option<Vec<String>>,
    pub(in crate::config) deny: Option<Vec<String>>,
    pub(in crate::config) challenge: Option<bool>,
}

pub(super) fn webhook(name: String, mut section: Section<'_>) -> Webhook {
    let format = section.choice(&fields::FORMAT);
    let secrets = section.secrets(&fields::SECRETS).unwrap_or_default();
    let webhook = Webhook {
        at: section.path().to_owned(),
        name,
        format,
        custom: section.section(&fields::CUSTOM).map(custom),
        secrets: secrets.into_iter().filter_map(|(at, node)| secret_source(&section, at, node)).collect(),
        allow_short_key: section.flag(&fields::ALLOW_SHORT_KEY),
        body_only: section.flag(&fields::BODY_ONLY),
        tolerance: section.duration(&fields::TOLERANCE),
        signature_status: section.number(&fields::SIGNATURE_STATUS),
        events: section.section(&fields::EVENTS).map(events),
        replay: section.section(&fields::REPLAY).map(replay),
        evict: section.flag_or_texts_map(&fields::EVICT),
        max_body_bytes: section.number(&fields::MAX_BODY_BYTES),
        body_timeout: section.duration(&fields::BODY_TIMEOUT),
        trust_source_address: section.flag(&fields::TRUST_SOURCE_ADDRESS),
        shadow: section.choice(&fields::MODE),
        enforce_percent: section.number(&fields::ENFORCE_PERCENT),
    };
    section.finish();
    webhook
}

fn custom(mut section: Section<'_>) -> Custom {
    let custom = Custom {
        at: section.path().to_owned(),
        signature_header: section.text(&custom::SIGNATURE_HEADER),
        prefix: section.text(&custom::PREFIX),
        algorithm: section.choice(&custom::ALGORITHM),
        encoding: section.choice(&custom::ENCODING),
        key: section.choice(&custom::KEY),
        content: section.text(&custom::CONTENT),
        timestamp_header: section.text(&custom::TIMESTAMP_HEADER),
        id_header: section.text(&custom::ID_HEADER),
    };
    section.finish();
    custom
}

fn replay(mut section: Section<'_>) -> Replay {
    let replay = Replay {
        at: section.path().to_owned(),
        window: section.duration(&replay::WINDOW),
        by: section.choice(&replay::BY),
        status: section.number(&replay::STATUS),
        slots: section.number(&replay::SLOTS),
    };
    section.finish();
    replay
}

fn events(mut section: Section<'_>) -> Events {
    let events = Events {
        at: section.path().to_owned(),
        kind: section.one_or_more(&events::TYPE),
        id: section.one_or_more(&events::ID),
        allow: section.texts(&events::ALLOW),
        deny: section.texts(&events::DENY),
        challenge: section.flag(&events::CHALLENGE),
    };
    section.finish();
    events
}
