//! The places and bytes of webhook bodies: what each webhook has in reserve, what all of them have
//! in common, and which body gives way when that is full.
//!
//! Whoever knows a webhook's path can send a head with any signature and withhold the body. So a
//! webhook's reserve is never given to another one. Where the common part is full, the slowest body
//! gives way: a sender that means it is not slower than one that only occupies room.

use super::StreamId;
use super::limits::Limits;
use crate::http::head::{RequestHead, Source};
use crate::policy::Policy;
use crate::time::Timestamp;
use crate::webhook::Webhook;
use std::collections::BTreeMap;
use std::time::Duration;

/// A webhook of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HookId {
    policy: u32,
    webhook: usize,
}

/// A body that is received, as far as it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) hook: HookId,
    /// Where it comes from, if the webhook trusts that.
    pub(super) source: Option<Source>,
    /// When its head came.
    pub(super) began: Timestamp,
    /// Bytes of it that the host holds.
    pub(super) held: usize,
}

/// What a body asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim {
    /// To be received.
    Place(Body),
    /// To be held as far as it has come; it is not counted meanwhile.
    Bytes(Body),
}

/// All received bodies.
#[derive(Clone, Debug)]
pub(super) struct Bodies {
    places: Pool,
    bytes: Pool,
    /// A search through all of them costs little: a document names a few.
    hooks: Vec<Hook>,
}

/// One webhook's part. One that no policy names any more has no reserve, and is forgotten with its
/// last body.
#[derive(Clone, Debug)]
struct Hook {
    id: HookId,
    places: Part,
    bytes: Part,
    bodies: BTreeMap<Order, usize>,
    /// In order.
    sources: Vec<Taken>,
}

/// What a source has taken of a webhook's part.
#[derive(Clone, Copy, Debug)]
struct Taken {
    source: Source,
    places: usize,
    bytes: usize,
}

/// The order of a webhook's bodies: how many binary digits the number of held bytes has, then the
/// time of the head.
type Order = (u32, Timestamp, StreamId);

/// What there is of one thing in all.
#[derive(Clone, Debug)]
struct Pool {
    total: usize,
    /// The sum of all reserves.
    reserved: usize,
    /// What webhooks have taken beyond their reserves.
    common_taken: usize,
}

/// What one webhook has of it.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    reserve: usize,
    taken: usize,
}

/// How fast a body has come so far.
#[derive(Clone, Copy, Debug)]
struct Pace {
    held: usize,
    age: Duration,
}

impl HookId {
    pub(super) fn new(policy: &Policy, webhook: &Webhook) -> Self {
        Self { policy: policy.id, webhook: webhook.index }
    }
}

impl Body {
    /// A body whose head came now.
    pub(super) fn new(policy: &Policy, webhook: &Webhook, head: &RequestHead<'_>, now: Timestamp) -> Self {
        let source = if webhook.trusts_source { head.source() } else { None };
        Self { hook: HookId::new(policy, webhook), source, began: now, held: 0 }
    }
}

impl Bodies {
    pub(super) fn new(limits: Limits) -> Self {
        let pool = |total| Pool { total, reserved: 0, common_taken: 0 };
        Self { places: pool(limits.receiving), bytes: pool(limits.held_bytes), hooks: Vec::new() }
    }

    /// How many bytes are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.hooks.iter().fold(0, |sum, hook| sum.saturating_add(hook.bytes.taken))
    }

    /// Takes the webhooks of all policies in force, each with its longest body. Half of the places
    /// are shared out among them; of the bytes each has one full body.
    pub(super) fn reserve(&mut self, hooks: &[(HookId, usize)]) {
        self.hooks.retain(|hook| !hook.bodies.is_empty());
        for hook in &mut self.hooks {
            (hook.places.reserve, hook.bytes.reserve) = (0, 0);
        }
        let places = self.places.total.div_euclid(2).checked_div(hooks.len()).unwrap_or_default().max(1);
        for (id, max_body_bytes) in hooks {
            let Some(hook) = find(&mut self.hooks, *id) else { continue };
            (hook.places.reserve, hook.bytes.reserve) = (places, *max_body_bytes);
        }
        self.places.recount(self.hooks.iter().map(|hook| hook.places));
        self.bytes.recount(self.hooks.iter().map(|hook| hook.bytes));
    }

    /// Counts a body.
    pub(super) fn add(&mut self, stream: StreamId, body: Body) {
        let Some(hook) = find(&mut self.hooks, body.hook) else { return };
        self.places.take(&mut hook.places, 1);
        self.bytes.take(&mut hook.bytes, body.held);
        hook.bodies.insert(order(stream, body), body.held);
        if let Some(source) = body.source {
            hook.add_source(source, body.held);
        }
    }

    /// Gives back what a body has taken.
    pub(super) fn release(&mut self, stream: StreamId, body: Body) {
        let Some(hook) = find(&mut self.hooks, body.hook) else { return };
        self.places.give_back(&mut hook.places, 1);
        self.bytes.give_back(&mut hook.bytes, body.held);
        hook.bodies.remove(&order(stream, body));
        if let Some(source) = body.source {
            hook.release_source(source, body.held);
        }
        if hook.bodies.is_empty() && hook.places.reserve == 0 {
            self.hooks.retain(|hook| hook.id != body.hook);
        }
    }

    /// Whether no body is counted, and no place or byte taken.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = |hook: &Hook| {
            let taken = hook.places.taken.saturating_add(hook.bytes.taken);
            hook.bodies.is_empty() && hook.sources.is_empty() && taken == 0
        };
        let common = self.places.common_taken.saturating_add(self.bytes.common_taken);
        self.hooks.iter().all(is_empty) && common == 0
    }

    /// Whether there is room for a body, as things are.
    pub(super) fn has_room(&self, claim: Claim) -> bool {
        let own = claim.body().hook;
        let hook = self.hooks.iter().find(|hook| hook.id == own);
        let has_room = match claim {
            Claim::Place(_) => self.places.has_room(hook.map(|hook| hook.places), 1),
            Claim::Bytes(body) => self.bytes.has_room(hook.map(|hook| hook.bytes), body.held),
        };
        has_room && self.is_within_share(claim)
    }

    /// Whether a body's source has less than half of what the webhook may take.
    fn is_within_share(&self, claim: Claim) -> bool {
        let body = claim.body();
        let Some(source) = body.source else { return true };
        let Some(hook) = self.hooks.iter().find(|hook| hook.id == body.hook) else { return true };
        let at = hook.sources.binary_search_by_key(&source, |taken| taken.source).ok();
        let taken = at.and_then(|at| hook.sources.get(at));
        match claim {
            Claim::Place(_) => {
                let taken = taken.map_or(0, |taken| taken.places);
                taken < self.places.of(hook.places).div_ceil(2)
            }
            Claim::Bytes(_) => {
                let taken = taken.map_or(0, |taken| taken.bytes);
                taken.saturating_add(body.held) <= self.bytes.of(hook.bytes).div_ceil(2)
            }
        }
    }

    /// The body that gives way so that there is room; `None` where there is room already, or where
    /// none gives way: a body of less than a second may yet be a fast one, and one of a webhook
    /// within its reserve takes nothing of what is common.
    ///
    /// Costs one look into each webhook for each number of binary digits, 28 at the most, however
    /// many bodies there are. Among those that hold so many digits, the oldest is at most twice as
    /// fast as the slowest, and so is the one that is found.
    pub(super) fn gives_way(&self, claim: Claim, now: Timestamp) -> Option<StreamId> {
        // Nobody gives way to a source that has its share.
        if self.has_room(claim) || !self.is_within_share(claim) {
            return None;
        }
        let own = claim.body().hook;
        // Whoever holds nothing frees no bytes.
        let digits = match claim {
            Claim::Place(_) => 0,
            Claim::Bytes(_) => 1,
        };
        let takes_of_common = |hook: &Hook| match claim {
            Claim::Place(_) => hook.places.beyond() > 0,
            Claim::Bytes(_) => hook.bytes.beyond() > 0,
        };
        let (pace, stream) = self
            .hooks
            .iter()
            .filter(|hook| hook.id == own || takes_of_common(hook))
            .filter_map(|hook| hook.slowest(digits, now))
            .reduce(|a, b| if b.0.is_slower_than(a.0) { b } else { a })?;
        match claim {
            Claim::Bytes(body) if !pace.is_slower_than(Pace::of(body.held, body.began, now)) => {
                // It is the slowest itself, unless it is too young to say so.
                (now.saturating_since(body.began) < MIN_AGE).then_some(stream)
            }
            Claim::Place(_) | Claim::Bytes(_) => Some(stream),
        }
    }
}

impl Claim {
    fn body(self) -> Body {
        let (Self::Place(body) | Self::Bytes(body)) = self;
        body
    }
}

impl Hook {
    fn add_source(&mut self, source: Source, bytes: usize) {
        match self.sources.binary_search_by_key(&source, |taken| taken.source) {
            Ok(at) => {
                if let Some(taken) = self.sources.get_mut(at) {
                    taken.places = taken.places.saturating_add(1);
                    taken.bytes = taken.bytes.saturating_add(bytes);
                }
            }
            Err(at) => self.sources.insert(at, Taken { source, places: 1, bytes }),
        }
    }

    fn release_source(&mut self, source: Source, bytes: usize) {
        let Ok(at) = self.sources.binary_search_by_key(&source, |taken| taken.source) else { return };
        let Some(taken) = self.sources.get_mut(at) else { return };
        taken.places = taken.places.saturating_sub(1);
        taken.bytes = taken.bytes.saturating_sub(bytes);
        if taken.places == 0 {
            self.sources.remove(at);
        }
    }

    /// The slowest body that holds a number of so many binary digits or more, and is old enough.
    fn slowest(&self, digits: u32, now: Timestamp) -> Option<(Pace, StreamId)> {
        let mut from = digits;
        let mut slowest: Option<(Pace, StreamId)> = None;
        while let Some((order, held)) = self.bodies.range((from, FIRST, StreamId(0))..).next() {
            let (digits, began, stream) = *order;
            let pace = Pace::of(*held, began, now);
            let is_slower = slowest.is_none_or(|(other, _)| pace.is_slower_than(other));
            if pace.age >= MIN_AGE && is_slower {
                slowest = Some((pace, stream));
            }
            from = digits.saturating_add(1);
        }
        slowest
    }
}

impl Pool {
    /// Whether so much more is there for this webhook: of its reserve first, then of the common
    /// part.
    fn has_room(&self, part: Option<Part>, more: usize) -> bool {
        let part = part.unwrap_or_default();
        let grown = Part { taken: part.taken.saturating_add(more), ..part };
        let of_common = grown.beyond().saturating_sub(part.beyond());
        let common = self.total.saturating_sub(self.reserved);
        of_common == 0 || self.common_taken.saturating_add(of_common) <= common
    }

    /// What a webhook may take at the most.
    fn of(&self, part: Part) -> usize {
        part.reserve.saturating_add(self.total.saturating_sub(self.reserved))
    }

    fn take(&mut self, part: &mut Part, more: usize) {
        let before = part.beyond();
        part.taken = part.taken.saturating_add(more);
        self.common_taken = self.common_taken.saturating_add(part.beyond().saturating_sub(before));
    }

    fn give_back(&mut self, part: &mut Part, less: usize) {
        let before = part.beyond();
        part.taken = part.taken.saturating_sub(less);
        self.common_taken = self.common_taken.saturating_sub(before.saturating_sub(part.beyond()));
    }

    fn recount(&mut self, parts: impl Iterator<Item = Part>) {
        (self.reserved, self.common_taken) = parts.fold((0, 0), |(reserved, taken), part| {
            (part.reserve.saturating_add(reserved), part.beyond().saturating_add(taken))
        });
    }
}

impl Part {
    /// What is taken beyond the reserve.
    fn beyond(self) -> usize {
        self.taken.saturating_sub(self.reserve)
    }
}

impl Pace {
    fn of(held: usize, began: Timestamp, now: Timestamp) -> Self {
        Self { held, age: now.saturating_since(began) }
    }

    /// Whether it has fewer bytes a second. Of two without a byte, the older one has.
    fn is_slower_than(self, other: Self) -> bool {
        let product = |held: usize, age: Duration| {
            u128::try_from(held).unwrap_or(u128::MAX).saturating_mul(age.as_nanos())
        };
        let (own, others) = (product(self.held, other.age), product(other.held, self.age));
        own < others || (own == others && self.age > other.age)
    }
}

/// This webhook, which is there from now on if it was not.
fn find(hooks: &mut Vec<Hook>, id: HookId) -> Option<&mut Hook> {
    if !hooks.iter().any(|hook| hook.id == id) {
        let (places, bytes, bodies, sources) = Default::default();
        hooks.push(Hook { id, places, bytes, bodies, sources });
    }
    hooks.iter_mut().find(|hook| hook.id == id)
}

fn order(stream: StreamId, body: Body) -> Order {
    (usize::BITS.saturating_sub(body.held.leading_zeros()), body.began, stream)
}

const FIRST: Timestamp = Timestamp::from_nanos(0);

/// How old a body is before it may have to give way: sooner, its pace says nothing.
const MIN_AGE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::head_of;

    const A: HookId = HookId { policy: 1, webhook: 0 };
    const B: HookId = HookId { policy: 1, webhook: 1 };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
    }

    /// Two webhooks: of the 8 places 2 are the reserve of each, of the 100 bytes 20.
    fn bodies() -> Bodies {
        let mut bodies = Bodies::new(Limits { receiving: 8, held_bytes: 100, ..Limits::default() });
        bodies.reserve(&[(A, 20), (B, 20)]);
        bodies
    }

    fn body(hook: HookId, millis: u64, held: usize) -> Body {
        Body { hook, source: None, began: at(millis), held }
    }

    fn place(hook: HookId) -> Claim {
        Claim::Place(body(hook, 9000, 0))
    }

    fn add(bodies: &mut Bodies, stream: u32, body: Body) {
        bodies.add(StreamId(stream), body);
    }

    #[test]
    fn a_webhook_fills_its_reserve_and_what_is_common_and_no_more() {
        let mut bodies = bodies();
        for n in 0..6 {
            assert!(bodies.has_room(place(A)), "{n}");
            add(&mut bodies, n, body(A, 0, 0));
        }
        assert!(!bodies.has_room(place(A)));
        for n in 6..8 {
            assert!(bodies.has_room(place(B)), "{n}");
            add(&mut bodies, n, body(B, 0, 0));
        }
        assert!(!bodies.has_room(place(B)));
        bodies.release(StreamId(0), body(A, 0, 0));
        assert!(bodies.has_room(place(A)) && bodies.has_room(place(B)));

        assert!(bodies.has_room(Claim::Bytes(body(A, 0, 80))), "a reserve of 20 and the common 60");
        assert!(!bodies.has_room(Claim::Bytes(body(A, 0, 81))));
        add(&mut bodies, 9, body(A, 0, 80));
        assert!(bodies.has_room(Claim::Bytes(body(B, 0, 20))));
        assert!(!bodies.has_room(Claim::Bytes(body(B, 0, 21))));
        bodies.release(StreamId(9), body(A, 0, 80));
        assert!(bodies.has_room(Claim::Bytes(body(B, 0, 80))));
    }

    #[test]
    fn the_slowest_gives_way_unless_it_is_young_or_within_the_reserve_of_another() {
        let mut bodies = bodies();
        add(&mut bodies, 0, body(A, 0, 6));
        add(&mut bodies, 1, body(A, 100, 0));
        add(&mut bodies, 2, body(A, 0, 1));
        (3..6).for_each(|n| add(&mut bodies, n, body(A, 900, 0)));
        // The slowest of all, but B takes nothing of what is common.
        (6..8).for_each(|n| add(&mut bodies, n, body(B, 0, 0)));
        let gives_way = |bodies: &Bodies, hook, millis| bodies.gives_way(place(hook), at(millis));
        assert_eq!(gives_way(&bodies, A, 999), None, "nobody is a second old");
        assert_eq!(gives_way(&bodies, A, 1099), Some(StreamId(2)), "it has a byte a second");
        assert_eq!(gives_way(&bodies, A, 1100), Some(StreamId(1)), "it has none");
        assert_eq!(gives_way(&bodies, B, 1099), Some(StreamId(6)), "its own");
        bodies.release(StreamId(6), body(B, 0, 0));
        assert_eq!(gives_way(&bodies, B, 5000), None, "there is room");
        bodies.release(StreamId(1), body(A, 100, 0));
        assert_eq!(gives_way(&bodies, A, 5000), None, "there is room");
    }

    #[test]
    fn bytes_are_freed_by_who_holds_some_and_the_slowest_may_be_the_one_that_asks() {
        let mut bodies = bodies();
        add(&mut bodies, 0, body(A, 0, 0));
        add(&mut bodies, 1, body(A, 0, 40));
        add(&mut bodies, 2, body(A, 0, 30));
        let gives_way = |asks: Body, millis| bodies.gives_way(Claim::Bytes(asks), at(millis));
        assert_eq!(gives_way(body(A, 0, 10), 2000), None, "there is room");
        assert_eq!(gives_way(body(A, 0, 11), 2000), None, "it is the slowest");
        assert_eq!(gives_way(body(A, 1500, 11), 2000), Some(StreamId(2)), "it is too young to tell");
        assert_eq!(gives_way(body(A, 0, 31), 2000), Some(StreamId(2)));
        assert_eq!(gives_way(body(B, 0, 31), 2000), Some(StreamId(2)), "of another webhook");
        assert_eq!(gives_way(body(B, 0, 30), 2000), None, "its reserve and the rest");
    }

    /// What [`Bodies::gives_way`] promises of the one that it finds.
    #[test]
    fn what_gives_way_is_at_most_twice_as_fast_as_the_slowest() {
        let mut roll = 7_u64;
        let mut dice = |end: u64| {
            roll = roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (roll >> 33) % end
        };
        for _ in 0..50 {
            let mut bodies = Bodies::new(Limits { receiving: 1, ..Limits::default() });
            let all: Vec<Body> = (0..200)
                .map(|_| {
                    let end = 1 << dice(20);
                    body(A, dice(9000), usize::try_from(1 + dice(end)).unwrap())
                })
                .collect();
            (0..).zip(&all).for_each(|(n, body)| add(&mut bodies, n, *body));
            let pace = |body: &Body| body.held as f64 / (10.0 - body.began.as_nanos() as f64 / 1e9 + 1.7e9);
            let found = bodies.gives_way(place(A), at(10_000)).unwrap();
            let found = pace(&all[usize::try_from(found.0).unwrap()]);
            let slowest = all.iter().map(pace).fold(f64::MAX, f64::min);
            assert!(found <= 2.001 * slowest, "{found} {slowest}");
        }
    }

    #[test]
    fn a_webhook_that_no_policy_names_has_no_reserve_and_is_forgotten_with_its_last_body() {
        let mut bodies = bodies();
        let old = body(A, 0, 15);
        add(&mut bodies, 0, old);
        let new = HookId { policy: 2, webhook: 0 };
        bodies.reserve(&[(new, 40)]);
        // Half of the places are its own, and the common half has lost one to the old webhook.
        for n in 1..8 {
            assert!(bodies.has_room(place(new)), "{n}");
            add(&mut bodies, n, body(new, 0, 0));
        }
        assert!(!bodies.has_room(place(new)));
        assert!(bodies.has_room(Claim::Bytes(body(new, 0, 85))));
        assert!(!bodies.has_room(Claim::Bytes(body(new, 0, 86))));
        bodies.release(StreamId(0), old);
        assert!(bodies.has_room(Claim::Bytes(body(new, 0, 100))) && bodies.has_room(place(new)));
        assert_eq!(bodies.hooks.len(), 1);
    }

    #[test]
    fn what_is_counted_on_the_way_is_what_a_recount_finds() {
        let mut roll = 1_u64;
        let mut dice = |end: u64| {
            roll = roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (roll >> 33) % end
        };
        let mut bodies = bodies();
        let mut all: Vec<(StreamId, Body)> = Vec::new();
        for n in 0..2000 {
            if all.len() > 20 || (!all.is_empty() && dice(2) == 0) {
                let (stream, gone) = all.swap_remove(usize::try_from(dice(all.len() as u64)).unwrap());
                bodies.release(stream, gone);
            } else {
                let hook = HookId { policy: 1, webhook: usize::try_from(dice(3)).unwrap() };
                let new = body(hook, dice(9000), usize::try_from(dice(40)).unwrap());
                bodies.add(StreamId(n), new);
                all.push((StreamId(n), new));
            }
            let counted = (bodies.places.common_taken, bodies.bytes.common_taken);
            let of = |hook: HookId| {
                let its = all.iter().filter(|(_, body)| body.hook == hook).map(|(_, body)| body.held);
                let reserve = if hook.webhook < 2 { (2, 20) } else { (0, 0) };
                (its.clone().count().saturating_sub(reserve.0), its.sum::<usize>().saturating_sub(reserve.1))
            };
            let hooks = (0..3).map(|webhook| of(HookId { policy: 1, webhook }));
            assert_eq!(counted, hooks.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1)));
        }
    }

    #[test]
    fn a_trusted_source_takes_at_most_half_of_what_its_webhook_may() {
        let from = |address: &'static str, held| {
            let read = || Some(format!("{address}:80").into_bytes());
            Body {
                source: head_of(&[(":method", "POST")], false).with_source(&read).source(),
                ..body(A, 0, held)
            }
        };
        let (one, other) = ("10.0.0.1", "10.0.0.2");
        let mut bodies = bodies();
        for n in 0..3 {
            assert!(bodies.has_room(Claim::Place(from(one, 0))), "{n}");
            add(&mut bodies, n, from(one, 0));
        }
        assert!(!bodies.has_room(Claim::Place(from(one, 0))), "half of 6");
        assert_eq!(bodies.gives_way(Claim::Place(from(one, 0)), at(5000)), None);
        assert!(bodies.has_room(Claim::Place(from(other, 0))) && bodies.has_room(place(A)));
        bodies.release(StreamId(2), from(one, 0));
        assert!(bodies.has_room(Claim::Place(from(one, 0))));

        add(&mut bodies, 2, from(one, 30));
        assert!(bodies.has_room(Claim::Bytes(from(one, 10))), "half of 80");
        assert!(!bodies.has_room(Claim::Bytes(from(one, 11))));
        assert!(bodies.has_room(Claim::Bytes(from(other, 40))));
        (0..2).for_each(|n| bodies.release(StreamId(n), from(one, 0)));
        bodies.release(StreamId(2), from(one, 30));
        assert!(bodies.hooks.iter().all(|hook| hook.sources.is_empty()));
    }
}
