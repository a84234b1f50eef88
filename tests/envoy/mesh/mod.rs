//! The manifests of `envoy/istio` and `envoy/gateway` at work: the configuration that istiod and
//! Envoy Gateway make of them, in a real Envoy, and what the gate cannot do there.

mod capabilities;
mod gateway;
mod istio;
mod stage;
mod translate;

use libtest_mimic::Trial;

use crate::Fleet;

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    [istio::trials(), gateway::trials(), capabilities::trials(fleet)].into_iter().flatten().collect()
}
