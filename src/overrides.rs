//! Headers with which a framework sees another request than the gate decided about.
//!
//! One table, from which the headers are removed and the page docs/configuration.md is written.

use crate::http::head::normalized_eq;

/// A header that some framework reads in place of a part of the request.
#[derive(Debug)]
pub struct Override {
    /// Its name, in lower case. Compared with every non-alphanumeric byte read as `-`.
    pub name: &'static str,
    /// What it replaces.
    pub replaces: Replaces,
    /// Who reads it, for the documentation.
    #[cfg(not(target_family = "wasm"))]
    pub read_by: &'static str,
}

/// The part of a request that a header replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// The method.
    Method,
    /// The path, or where in it the application begins.
    Path,
    /// The file that is sent for the path.
    File,
    /// The host, which decides where a route names `hosts`, and nowhere else.
    Host,
}

impl Replaces {
    /// The word for it in messages and documentation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Path => "path",
            Self::File => "file",
            Self::Host => "host",
        }
    }
}

const fn header(name: &'static str, replaces: Replaces, read_by: &'static str) -> Override {
    // Descriptions for people are not compiled into the WebAssembly module.
    #[cfg(target_family = "wasm")]
    let _ = read_by;
    Override {
        name,
        replaces,
        #[cfg(not(target_family = "wasm"))]
        read_by,
    }
}

/// Every such header. One that only a service's own code reads belongs into `strip_headers`.
pub const ALL: [Override; 28] = [
    header(
        "x-http-method-override",
        Replaces::Method,
        "Rack and Rails, Symfony and Laravel, ASP.NET Core, Express (`method-override`), Jersey, WordPress",
    ),
    header("x-http-method", Replaces::Method, "OData and SharePoint, Express (`method-override`)"),
    header("x-method-override", Replaces::Method, "Express (`method-override`), JAX-RS filters"),
    header("x-http-verb-override", Replaces::Method, "REST filters of .NET and Java"),
    header("x-original-method", Replaces::Method, "services behind nginx's `auth_request`"),
    header("x-forwarded-method", Replaces::Method, "services behind Traefik's or Caddy's forward auth"),
    header("x-original-url", Replaces::Path, "Symfony before 4.1.3, Zend Framework and Laminas, IIS (ARR)"),
    header("x-original-uri", Replaces::Path, "services behind nginx's `auth_request`"),
    header("x-rewrite-url", Replaces::Path, "Symfony before 4.1.3, Zend Framework, Yii, IIS (ISAPI_Rewrite)"),
    header("x-envoy-original-path", Replaces::Path, "Envoy"),
    header("script_name", Replaces::Path, "gunicorn"),
    header("path_info", Replaces::Path, "gunicorn"),
    header("x-script-name", Replaces::Path, "mod_wsgi, WSGI middlewares for a path prefix"),
    header("x-forwarded-script-name", Replaces::Path, "mod_wsgi, Plack (`ReverseProxyPath`)"),
    header("x-traversal-path", Replaces::Path, "Plack (`ReverseProxyPath`)"),
    header("x-forwarded-uri", Replaces::Path, "services behind Traefik's or Caddy's forward auth"),
    header("x-forwarded-path", Replaces::Path, "services behind Kong, serverless adapters"),
    header(
        "x-forwarded-prefix",
        Replaces::Path,
        "Spring (`ForwardedHeaderFilter`), ASP.NET Core, Werkzeug (`ProxyFix`), Symfony",
    ),
    header("x-matched-path", Replaces::Path, "Next.js, serverless adapters"),
    header("x-invoke-path", Replaces::Path, "Next.js before 14.2, serverless adapters"),
    header("x-sendfile-type", Replaces::File, "Rack (`Sendfile`)"),
    header("x-accel-mapping", Replaces::File, "Rack (`Sendfile`)"),
    header("x-accel-redirect", Replaces::File, "nginx, of what a service reflects"),
    header("forwarded", Replaces::Host, "Spring, Rails, Symfony and Laravel, Undertow"),
    header(
        "x-forwarded-host",
        Replaces::Host,
        "Rails, Symfony and Laravel, Spring, Django, ASP.NET Core, Express (`trust proxy`)",
    ),
    header("x-forwarded-server", Replaces::Host, "mod_wsgi, Paste (`PrefixMiddleware`)"),
    header(
        "x-original-host",
        Replaces::Host,
        "services behind ASP.NET Core's forwarded headers, Azure's gateway",
    ),
    header("x-host", Replaces::Host, "mod_wsgi"),
];

/// The header that is known by this name.
pub(crate) fn find(name: &str) -> Option<&'static Override> {
    ALL.iter().find(|known| normalized_eq(known.name.as_bytes(), name.as_bytes()))
}
