//! The lines of `envoy/` that protect: each trial plays an attack twice, on what is shipped and on
//! what is left without the line, where it has to succeed. `shipped.yaml` is the list of them.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "the lint wall is the core's, and these numbers are small"
)]

mod clusters;
mod holding;
mod plugin;
mod reading;

pub(crate) use plugin::failing_module;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use harness::client::{Answer, Ask, Failure, PATIENCE, Version};
use harness::envoy::{Envoy, Options, Refused};
use harness::sample::{self, Policy};
use harness::scene::Scene;
use harness::shipped::{Line, Lines, Part};
use harness::{corpus, standin};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::{Fleet, Outcome, ensure};

/// How a line's attack is played. Each function says whether what it is given is protected.
#[derive(Clone, Copy)]
enum Play {
    /// On a scene whose listener, or whose cluster of the service, has the line or not. The text
    /// differs from call to call.
    Scene(fn(&Scene, &str) -> Result<bool, String>),
    /// The same with a module that fails, on an Envoy of such.
    Failing(fn(&Scene, &str) -> Result<bool, String>),
    /// On a scene, with the listener or cluster that has the line or not: to be put there.
    Given(fn(&mut Scene, Value) -> Result<bool, String>),
    /// On an Envoy of its own, whose bootstrap has the line or not.
    Alone(fn(&Arc<Envoy>) -> Result<bool, String>),
}

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let failing = fleet.apart();
    let plays = [reading::PLAYS, holding::PLAYS, plugin::PLAYS, clusters::PLAYS].concat();
    let mut trials = vec![crate::trial(
        fleet,
        "shipped/nobody_is_trusted_where_nothing_is_said_of_internal_addresses",
        1,
        reading::nobody_is_trusted,
    )];
    for line in Lines::load().lines {
        let Some(name) = line.trial() else { continue };
        let play = plays.iter().find(|(of, _)| *of == name).map(|(_, play)| *play);
        let (versions, test) = (line.envoy.clone(), line.test.clone());
        let (all, fleet, failing) = (fleet, fleet.clone(), failing.clone());
        trials.push(all.since(versions.as_ref(), &test, move || {
            let play = play.ok_or("nobody plays its attack")?;
            let played = match play {
                Play::Scene(_) | Play::Given(_) => {
                    fleet.get(1).and_then(|envoy| on_a_scene(&line, &envoy, play))
                }
                Play::Failing(_) => failing.get(1).and_then(|envoy| on_a_scene(&line, &envoy, play)),
                Play::Alone(holds) => on_two_envoys(&line, holds),
            };
            played.map_err(Failed::from)
        }));
    }
    trials
}

/// With the line the attack fails, and without it it succeeds.
fn judge(line: &Line, mut holds: impl FnMut(bool) -> Result<bool, String>) -> Outcome {
    ensure!(holds(true)?, "the shipped line {} does not protect", line.at);
    ensure!(!holds(false)?, "without the line {} nothing is different: this test shows no attack", line.at);
    Ok(())
}

fn edited(line: &Line, mut whole: Value, is_there: bool) -> Result<Value, String> {
    if is_there { line.strengthen(&mut whole) } else { line.weaken(&mut whole) }?;
    Ok(whole)
}

fn on_a_scene(line: &Line, envoy: &Arc<Envoy>, play: Play) -> Outcome {
    let mut scene = Scene::new(envoy, line.trial().unwrap_or_default(), standin::Seed::embedded())?;
    scene.shape.policy = slow_policy(&scene, sample::forgetful_policy());
    let mut module = sample::module()?;
    if let Play::Failing(_) = play {
        module = failing_module(envoy)?;
    }
    judge(line, |is_there| {
        let id = format!("{}{}", scene.shape.name, if is_there { WITH } else { WITHOUT });
        scene.shape.label.clone_from(&id);
        if let Play::Failing(_) = play {
            // One worker has one such module for each id: they fail on their own.
            scene.shape.vm_id = Some(id.clone());
        }
        let mut listener = sample::listener(&scene.shape, &module);
        let given = match line.part {
            Part::Service => {
                let service = sample::cluster("upstream", &scene.shape.service, Some(scene.upstream.0));
                edited(line, service, is_there)?
            }
            Part::Provider => edited(line, sample::cluster("avnology", &scene.cluster, None), is_there)?,
            _ => edited(line, listener.clone(), is_there)?,
        };
        match (play, line.part) {
            (Play::Given(_), _) => {}
            // What is as it was is not taken anew.
            (_, Part::Service) if is_there && line.tried.is_none() => {}
            (_, Part::Service) => put_cluster(&scene, given.clone())?,
            _ => listener = given.clone(),
        }
        put_listener(&scene, listener)?;
        match play {
            Play::Scene(holds) | Play::Failing(holds) => holds(&scene, &id),
            Play::Given(holds) => holds(&mut scene, given),
            Play::Alone(_) => Err("it wants an Envoy of its own".to_owned()),
        }
    })
}

fn on_two_envoys(line: &Line, holds: fn(&Arc<Envoy>) -> Result<bool, String>) -> Outcome {
    judge(line, |is_there| {
        let environment =
            corpus::ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = Options { workers: 1, environment, module: sample::module()?, narrate: false };
        let edit = |bootstrap: &mut Value| {
            *bootstrap = edited(line, bootstrap.take(), is_there)?;
            Ok(())
        };
        holds(&Arc::new(Envoy::start_edited(options, edit)?))
    })
}

const HOST: &str = "api.example.com";

/// How long a trial waits for what is not to come; the limits that it tries are half a second.
const NEVER: Duration = Duration::from_millis(1800);

/// How long a trial waits for what comes with the line, on however busy a machine, and does not come
/// without it.
fn patience(scene: &Scene) -> Duration {
    if scene.shape.label.ends_with(WITHOUT) { NEVER } else { PATIENCE }
}

/// The end of the label of a listener that has the line, and of one that has not.
const WITH: &str = "-with";
const WITHOUT: &str = "-without";

/// A policy that waits for the provider longer than the shipped one, however busy the machine.
fn slow_policy(scene: &Scene, mut policy: Value) -> Policy {
    policy["provider"]["timeout"] = json!("3s");
    Policy::Document(scene.local(&policy).to_string().into_bytes())
}

fn put_cluster(scene: &Scene, cluster: Value) -> Outcome {
    scene.envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)
}

fn put_listener(scene: &Scene, listener: Value) -> Outcome {
    scene.envoy.put_raw_listener(&scene.shape.name, listener).map_err(|Refused(text)| text)
}

fn healthz() -> Ask {
    Ask::new("GET", "/healthz", HOST)
}

fn get(scene: &Scene, path: &str) -> Result<Answer, String> {
    ask(scene, &Ask::new("GET", path, HOST))
}

fn ask(scene: &Scene, request: &Ask) -> Result<Answer, String> {
    scene.connect(Version::Http1, None)?.ask(request).map_err(text)
}

/// The status, unless there is no answer in time.
fn status_in_time(scene: &Scene, request: &Ask) -> Result<Option<u16>, String> {
    let mut connection = scene.connect(Version::Http1, None)?;
    connection.send(request).map_err(text)?;
    match connection.answer(patience(scene)) {
        Ok(answer) => Ok(Some(answer.status)),
        Err(Failure::Silent) => Ok(None),
        Err(failure) => Err(text(failure)),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn open(scene: &Scene) -> Result<TcpStream, String> {
    scene.envoy.open(scene.address).map_err(text)
}

fn passed(answer: &Answer) -> Outcome {
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(())
}
