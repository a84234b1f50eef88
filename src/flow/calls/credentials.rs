//! A question asked once more, where the provider refuses the gate's own credentials.

use super::{Calls, Stage};
use crate::flow::health::{GRACE, Health, Sending};
use crate::flow::timers::Timer;
use crate::flow::{FlightId, Output};
use crate::time::Timestamp;

impl Calls {
    /// The gate's own credentials were refused: asks once more, with the others that there may be.
    /// Returns whether it did.
    pub(in crate::flow) fn ask_as_other(
        &mut self,
        id: FlightId,
        health: &Health,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) -> bool {
        let Some(flight) = self.flights.get_mut(&id) else { return false };
        let Stage::UnderWay(deadline) = &mut flight.stage else { return false };
        // What a first call would not be sent for, a second one is not sent for either.
        if now >= flight.wanted_until
            || !health.may_try_other(flight.endpoint, now)
            || health.check(flight.endpoint, flight.purpose, now).is_err()
        {
            return false;
        }
        let Some(mut callout) = flight.other.take() else { return false };
        let under_way = self.shares.under_way(flight.root, flight.purpose);
        callout.retries_unsent_only = under_way.saturating_mul(2) > flight.share;
        sending.timers.clear(deadline);
        let due = now.saturating_add(callout.timeout).saturating_add(GRACE);
        *deadline = sending.timers.set(flight.root, due, Timer::Flight(id));
        (flight.uses_next, flight.is_second, flight.started) = (!flight.uses_next, true, now);
        sending.outputs.push(Output::Dispatch { flight: id, root: flight.root, callout: *callout });
        true
    }
}
