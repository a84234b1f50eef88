//! Policies and requests at random, small enough that they meet.

use serde_json::{Value, json};

/// A policy, as the reference reads it.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) routes: Vec<Route>,
    pub(crate) default_access: &'static str,
    pub(crate) shadow: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) host: Host,
    pub(crate) pattern: Vec<Piece>,
    /// None: every method.
    pub(crate) methods: Vec<&'static str>,
    pub(crate) access: Access,
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) audience: Vec<&'static str>,
    /// The claim `org_id` must be this part of the path.
    pub(crate) org_is: Option<Parameter>,
    /// The bearer must be editor of this part of the path.
    pub(crate) editor_of: Option<Parameter>,
    pub(crate) shadow: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Any,
    Exact(&'static str),
    /// With its dot.
    Suffix(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(&'static str),
    Parameter(Parameter),
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter(pub &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Public,
    Optional,
    Required,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) authority: &'static str,
    pub(crate) path: &'static str,
    pub(crate) authorization: Option<&'static str>,
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) decision: &'static str,
    pub(crate) reason: &'static str,
    /// The status of a refusal.
    pub(crate) status: Option<u16>,
    /// `x-avnology-user-id` as the service reads it.
    pub(crate) identity: Option<&'static str>,
}

impl Decided {
    pub(crate) fn passed(reason: &'static str) -> Self {
        Self { decision: "allow", reason, status: None, identity: None }
    }

    pub(crate) fn passed_as(reason: &'static str, claims: &Claims) -> Self {
        Self { identity: Some(claims.sub), ..Self::passed(reason) }
    }

    pub(crate) fn refused(status: u16, reason: &'static str) -> Self {
        Self { decision: "deny", reason, status: Some(status), identity: None }
    }
}

/// What the provider knows of a token.
#[derive(Debug)]
pub(crate) enum Known {
    Active(Claims),
    Garbage,
    Fails,
}

#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) sub: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) aud: &'static [&'static str],
    pub(crate) org: Option<&'static str>,
    pub(crate) is_expired: bool,
}

const ALICE: Claims =
    Claims { sub: "alice", scope: "read write", aud: &["api", "web"], org: Some("b"), is_expired: false };

/// All others are inactive.
pub(crate) const TOKENS: [(&str, Known); 6] = [
    ("alice", Known::Active(ALICE)),
    ("bob", Known::Active(Claims { sub: "bob", scope: "read", aud: &["other"], org: None, ..ALICE })),
    ("rob", Known::Active(Claims { sub: "rob", scope: "reader", org: Some("granted"), ..ALICE })),
    ("old", Known::Active(Claims { sub: "old", is_expired: true, ..ALICE })),
    ("junk", Known::Garbage),
    ("fails", Known::Fails),
];

/// Choices: the given bytes first, one for each, and then numbers at random, the same for the same
/// seed (SplitMix64).
pub(crate) struct Random<'b> {
    seed: u64,
    bytes: &'b [u8],
}

impl<'b> Random<'b> {
    pub(crate) fn new(seed: u64, bytes: &'b [u8]) -> Self {
        Self { seed, bytes }
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        if let Some((byte, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return usize::from(*byte) % most;
        }
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % most as u64) as usize
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

impl Parameter {
    /// What a path has in its place.
    pub(crate) fn of<'p>(self, pattern: &[Piece], path: &'p [String]) -> &'p str {
        let nth = pattern.iter().position(|piece| *piece == Piece::Parameter(self)).expect("of this pattern");
        &path[nth]
    }
}

impl Policy {
    pub(crate) fn random(random: &mut Random<'_>) -> Self {
        let routes = (0..1 + random.below(6)).map(|_| Route::random(random)).collect();
        let default_access = random.of(&["deny", "deny", "required", "public"]);
        Self { routes, default_access, shadow: random.once_in(8) }
    }

    pub(crate) fn document(&self) -> Value {
        json!({
            "provider": {
                "cluster": "avnology", "authority": "id.example", "retries": 0,
                "introspection": {"credentials": {"method": "none"}},
                "permissions": {"api_key": "key"}
            },
            "routes": self.routes.iter().map(Route::document).collect::<Vec<_>>(),
            "default_access": self.default_access,
            "mode": if self.shadow { "shadow" } else { "enforce" }
        })
    }
}

impl Route {
    fn random(random: &mut Random<'_>) -> Self {
        let mut pattern = Vec::new();
        for name in ["x", "y", "z"].into_iter().take(random.below(4)) {
            pattern.push(match random.below(3) {
                0 => Piece::Parameter(Parameter(name)),
                _ => Piece::Literal(random.of(&["a", "b", "A", "granted"])),
            });
        }
        match random.below(4) {
            0 => pattern.push(Piece::Rest),
            1 => pattern.push(Piece::Literal("")),
            _ if pattern.is_empty() => pattern.push(Piece::Literal("")),
            _ => {}
        }
        let parameters: Vec<Parameter> = pattern
            .iter()
            .filter_map(|piece| if let Piece::Parameter(name) = piece { Some(*name) } else { None })
            .collect();
        let access = random.of(&[Access::Public, Access::Optional, Access::Required, Access::Required]);
        let has_rules = access != Access::Public;
        let parameter = |random: &mut Random<'_>| {
            (has_rules && !parameters.is_empty() && random.once_in(2)).then(|| random.of(&parameters))
        };
        let (org_is, editor_of) = (parameter(random), parameter(random));
        Self {
            host: random.of(&[Host::Any, Host::Any, Host::Exact("api.example"), Host::Suffix(".example")]),
            pattern,
            methods: random.of(&[&[][..], &[], &["GET"], &["PUT"], &["GET", "PUT"]]).to_vec(),
            access,
            scopes: if has_rules {
                random.of(&[&[][..], &["read"], &["read", "write"]]).to_vec()
            } else {
                Vec::new()
            },
            audience: if has_rules {
                random.of(&[&[][..], &["api"], &["x", "web"]]).to_vec()
            } else {
                Vec::new()
            },
            org_is,
            editor_of,
            shadow: random.of(&[None, None, None, Some(true), Some(false)]),
        }
    }

    fn document(&self) -> Value {
        let path: String = self
            .pattern
            .iter()
            .map(|piece| match piece {
                Piece::Literal(name) => format!("/{name}"),
                Piece::Parameter(Parameter(name)) => format!("/{{{name}}}"),
                Piece::Rest => "/{*rest}".to_owned(),
            })
            .collect();
        let mut route = json!({"match": {"path": path}});
        if !self.methods.is_empty() {
            route["match"]["methods"] = json!(self.methods);
        }
        match self.host {
            Host::Any => {}
            Host::Exact(name) => route["match"]["hosts"] = json!([name]),
            Host::Suffix(suffix) => route["match"]["hosts"] = json!([format!("*{suffix}")]),
        }
        match self.access {
            Access::Public => route["access"] = json!("public"),
            Access::Optional => route["access"] = json!("optional"),
            Access::Required => {}
        }
        if !self.scopes.is_empty() {
            route["require"]["scopes"] = json!({"all": self.scopes});
        }
        if !self.audience.is_empty() {
            route["require"]["audience"] = json!(self.audience);
        }
        if let Some(Parameter(name)) = self.org_is {
            route["require"]["claims"] = json!({"org_id": format!("{{path.{name}}}")});
        }
        if let Some(Parameter(name)) = self.editor_of {
            let check = json!({"relation": "editor", "object": format!("project:{{path.{name}}}")});
            route["require"]["permissions"] = json!({"all": [check]});
        }
        if let Some(shadow) = self.shadow {
            route["mode"] = json!(if shadow { "shadow" } else { "enforce" });
        }
        route
    }
}

impl Request {
    pub(crate) fn random(random: &mut Random<'_>) -> Self {
        const PATHS: [&str; 24] = [
            "/",
            "/a",
            "/a/",
            "/A",
            "/b",
            "/B/",
            "/a/b",
            "/A/b",
            "/a/b/",
            "/%61/b",
            "/a/granted",
            "/a/fails",
            "/b/b/a",
            "/b/a/granted",
            "/granted",
            "/granted/",
            "/b/granted/b",
            "/a/a/a/a",
            "/a//b",
            "/a/../b",
            "/a;x/b",
            "/a%2fb",
            "/a/b/fails",
            "/a/b/%61/",
        ];
        Self {
            method: random.of(&["GET", "PUT", "HEAD", "DELETE"]),
            authority: random.of(&["api.example", "api.example", "API.example", "b.example", "other", "a@b"]),
            path: random.of(&PATHS),
            authorization: random.of(&[
                None,
                Some("Bearer alice"),
                Some("bearer  alice"),
                Some("BEARER bob"),
                Some("Bearer rob"),
                Some("Bearer old"),
                Some("Bearer junk"),
                Some("Bearer fails"),
                Some("Bearer nobody"),
                Some("Bearer rt_1"),
                Some("Bearer"),
                Some("Bearer a,b"),
                Some("Basic YTpi"),
                Some("Bearer alice"),
            ]),
        }
    }
}
