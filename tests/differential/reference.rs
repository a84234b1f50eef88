//! What the gate must decide, written as plainly as it can be said: every route is looked at, every
//! rule is a line, nothing is kept and nothing is fast.

use crate::world::{Access, Decided, Host, Known, Piece, Policy, Request, Route, TOKENS};

/// The decision about a request: how it ends, why, and as whom the service is told.
pub(crate) fn decide(policy: &Policy, request: &Request) -> Decided {
    let decided = route(policy, request);
    // A refusal of no route is counted only where the whole policy is in shadow.
    let is_routed = !["invalid_host", "invalid_path", "no_route"].contains(&decided.reason);
    if policy.shadow && !is_routed { Decided { decision: "shadow_deny", ..decided } } else { decided }
}

fn route(policy: &Policy, request: &Request) -> Decided {
    if request.authority.contains(['%', '@', ' ']) {
        return Decided::refused(400, "invalid_host");
    }
    let Some(path) = segments(request.path) else { return Decided::refused(400, "invalid_path") };
    let matching = |path: &[String], folded: bool| {
        let all = policy.routes.iter().filter(|route| is_for_host(route, request.authority));
        let mut all: Vec<&Route> = all.filter(|route| is_match(&route.pattern, path, folded)).collect();
        all.sort_by_key(|route| rank(route));
        all
    };
    let exact = matching(&path, false);
    // A framework that ignores case or a trailing slash must not find a narrower rule.
    for other in [path.clone(), slash_toggled(&path)] {
        if let Some(twin) = matching(&other, true).first()
            && exact.first().is_none_or(|best| rank(twin) < rank(best))
        {
            return Decided::refused(403, "no_route");
        }
    }
    let Some(best) = exact.first() else {
        return match policy.default_access {
            "public" => Decided::passed("public"),
            "required" => authenticate(policy, None, request, &path),
            _ => Decided::refused(403, "no_route"),
        };
    };
    let named = |route: &&&Route| {
        let method = if request.method == "HEAD" { "GET" } else { request.method };
        rank(route) == rank(best) && (route.methods.is_empty() || route.methods.contains(&method))
    };
    match exact.iter().find(named) {
        None => Decided::refused(403, "no_route"),
        Some(route) if route.access == Access::Public => Decided::passed("public"),
        Some(route) => authenticate(policy, Some(route), request, &path),
    }
}

fn authenticate(policy: &Policy, route: Option<&Route>, request: &Request, path: &[String]) -> Decided {
    let is_optional = route.is_some_and(|route| route.access == Access::Optional);
    let refuse = |decided: Decided| match route.and_then(|route| route.shadow).unwrap_or(policy.shadow) {
        true => Decided { decision: "shadow_deny", ..decided },
        false => decided,
    };
    let token = match request.authorization {
        None => None,
        Some(value) => match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                let token = token.trim_start_matches(' ');
                if token.is_empty() || token.contains([',', ' ', '"']) {
                    return refuse(Decided::refused(400, "malformed_credential"));
                }
                Some(token)
            }
            None if value.eq_ignore_ascii_case("bearer") => {
                return refuse(Decided::refused(400, "malformed_credential"));
            }
            _ => None,
        },
    };
    let Some(token) = token else {
        return if is_optional {
            Decided::passed("anonymous")
        } else {
            refuse(Decided::refused(401, "missing_token"))
        };
    };
    if token.starts_with("rt_") {
        return refuse(Decided::refused(401, "token_kind"));
    }
    let Some((_, known)) = TOKENS.iter().find(|(name, _)| *name == token) else {
        return refuse(Decided::refused(401, "token_inactive"));
    };
    let claims = match known {
        Known::Garbage => return refuse(Decided::refused(503, "provider_bad_reply")),
        Known::Fails => return refuse(Decided::refused(503, "provider_server_error")),
        Known::Active(claims) => claims,
    };
    if claims.is_expired {
        return refuse(Decided::refused(401, "token_expired"));
    }
    let Some(route) = route else { return Decided::passed_as("authenticated", claims) };
    if !route.audience.is_empty() && !claims.aud.iter().any(|aud| route.audience.contains(aud)) {
        return refuse(Decided::refused(401, "wrong_audience"));
    }
    if !route.scopes.iter().all(|scope| claims.scope.split(' ').any(|had| had == *scope)) {
        return refuse(Decided::refused(403, "insufficient_scope"));
    }
    if let Some(parameter) = route.org_is
        && claims.org != Some(parameter.of(&route.pattern, path))
    {
        return refuse(Decided::refused(403, "claim_mismatch"));
    }
    let Some(parameter) = route.editor_of else { return Decided::passed_as("authenticated", claims) };
    let object = parameter.of(&route.pattern, path);
    let decided = match object {
        "granted" => return Decided::passed_as("authenticated", claims),
        "fails" => Decided::refused(503, "provider_server_error"),
        _ => Decided::refused(403, "permission_denied"),
    };
    let decided = refuse(decided);
    if decided.decision == "shadow_deny" {
        Decided { identity: Some(claims.sub), ..decided }
    } else {
        decided
    }
}

/// The decoded segments of a path; `None` for one that two servers could read differently.
fn segments(path: &str) -> Option<Vec<String>> {
    let decoded: Vec<String> =
        path.strip_prefix('/')?.split('/').map(|segment| segment.replace("%61", "a")).collect();
    let odd = |segment: &String| segment.contains(['%', '\\', ';']) || segment == "." || segment == "..";
    let (last, front) = decoded.split_last()?;
    (!front.iter().any(String::is_empty) && !odd(last) && !front.iter().any(odd)).then_some(decoded)
}

fn slash_toggled(path: &[String]) -> Vec<String> {
    match path {
        [front @ .., last] if last.is_empty() && !front.is_empty() => front.to_vec(),
        _ => [path, &[String::new()]].concat(),
    }
}

fn is_for_host(route: &Route, authority: &str) -> bool {
    let host = authority.to_ascii_lowercase();
    match route.host {
        Host::Any => true,
        Host::Exact(name) => host == name,
        Host::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
    }
}

fn is_match(pattern: &[Piece], path: &[String], folded: bool) -> bool {
    match (pattern, path) {
        ([], []) | ([Piece::Rest], [_, ..]) => true,
        ([Piece::Literal(name), pattern @ ..], [segment, path @ ..]) => {
            let same = if folded { segment.eq_ignore_ascii_case(name) } else { segment == name };
            same && is_match(pattern, path, folded)
        }
        ([Piece::Parameter(_), pattern @ ..], [segment, path @ ..]) => {
            !segment.is_empty() && is_match(pattern, path, folded)
        }
        _ => false,
    }
}

/// How specific a route is: its host, then its path piece by piece. Less is more specific.
fn rank(route: &Route) -> (usize, Vec<u8>) {
    let host = match route.host {
        Host::Exact(_) => 0,
        Host::Suffix(suffix) => 1000 - suffix.len(),
        Host::Any => 2000,
    };
    let piece = |piece: &Piece| match piece {
        Piece::Literal(_) => 0,
        Piece::Parameter(_) => 1,
        Piece::Rest => 2,
    };
    let mut pieces: Vec<u8> = route.pattern.iter().map(piece).collect();
    // An end and a final slash are as specific as each other.
    while pieces.last() == Some(&0) {
        pieces.pop();
    }
    (host, pieces)
}
