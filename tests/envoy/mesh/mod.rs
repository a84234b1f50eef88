//! The manifests of `envoy/istio` and `envoy/gateway` at work: the configuration that istiod and
//! Envoy Gateway make of them, in a real Envoy, and what the gate cannot do there.

mod gateway;
mod istio;
mod stage;
mod translate;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [istio::trials(), gateway::trials()].into_iter().flatten().collect()
}
