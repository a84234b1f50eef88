//! One token on two routes that ask different scopes of it: what is remembered is the token, never
//! the decision.

use serde_json::json;

use crate::provider::{Identity, Mood};
use crate::report::{Row, Tally};
use crate::stage::{Stage, at_once, wrong};
use crate::wire::{Reply, request};

/// Each with the scope of its name.
const ROUTES: [&str; 2] = ["/profile", "/admin"];

/// What tokens hold; none stands for a token that does not hold.
const HELD: [&str; 4] = ["profile", "admin", "profile.admin", ""];

fn right(path: &str, token: &str, reply: &Reply) -> Result<&'static str, String> {
    let scope = path.trim_start_matches('/');
    let (kind, right) = match Identity::of(token) {
        None => ("401", reply.invalid_token()),
        Some(identity) if identity.holds(scope) => ("200", reply.serves(token)),
        Some(_) => ("403", reply.lacks(scope)),
    };
    if right { Ok(kind) } else { Err(format!("{path} with {token}: {}", wrong(reply))) }
}

/// Both orders; cold, then hot on both workers; then both routes wait for one answer.
pub(crate) fn two_routes(row: &mut Row) -> Result<(), String> {
    let stage = Stage::start(json!({"provider": {"timeout": "10s"}}))?;
    let mut wires = stage.even(8)?;
    let mut number = 20;
    let mut calls = Vec::new();
    let mut fresh = |held: &str| {
        number += 1;
        if held.is_empty() { format!("tok_off{number}") } else { format!("tok_{number}_{held}") }
    };
    let (mut cold, mut hot, mut together) = (Tally::default(), Tally::default(), Tally::default());
    for order in [[0, 1], [1, 0]] {
        for held in HELD {
            let token = fresh(held);
            for route in order {
                let reply = wires[0].ask(&request("GET", ROUTES[route], &token))?;
                cold.count(right(ROUTES[route], &token, &reply));
            }
            for turn in 0..2 {
                let path = |nth: usize| ROUTES[order[(nth / 2 + turn) % 2]];
                let replies = at_once(&mut wires, |nth| ("GET", path(nth), token.clone()))?;
                replies
                    .iter()
                    .enumerate()
                    .for_each(|(nth, reply)| hot.count(right(path(nth), &token, reply)));
            }
            calls.push((stage.provider.of(&token), token));

            let token = fresh(held);
            let before = stage.requests();
            stage.provider.mood(Mood::Held);
            let path = |nth: usize| ROUTES[order[nth / 2 % 2]];
            for (nth, wire) in wires.iter_mut().enumerate() {
                wire.send(&request("GET", path(nth), &token))?;
            }
            stage.arrived(before + 8)?;
            stage.provider.mood(Mood::Well);
            for (nth, wire) in wires.iter_mut().enumerate() {
                together.count(right(path(nth), &token, &wire.answer()?));
            }
            calls.push((stage.provider.of(&token), token));
        }
    }
    row.saw(format!("cold {}; hot {}; in one flight {}", cold.report(), hot.report(), together.report()));
    let most = calls.iter().map(|(calls, _)| *calls).max().unwrap_or(0);
    row.saw(format!("at most {most} introspections of a token"));
    row.all("cold", &cold, 16);
    row.all("hot", &hot, 128);
    row.all("in one flight", &together, 64);
    for (calls, token) in calls {
        row.must((1..=2).contains(&calls), || format!("{calls} introspections of {token}"));
    }
    stage.sound(row);
    Ok(())
}
