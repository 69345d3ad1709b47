//! Promise: whatever is not exactly a known token is refused without a word about which tokens exist.

use prism_e2e::{Api, Server, Trial};
use serde_json::json;

/// Values of the `authorization` header; `{t}` is the token, `{i}` its id, `{s}` its secret.
const HEADERS: &[&str] = &[
    "",
    " ",
    "{t}",
    "Bearer",
    "Bearer ",
    "Bearer  ",
    "Bearer pt_",
    "Bearer pt__",
    "Bearer pt_{i}",
    "Bearer pt_{i}_",
    "Bearer {i}_{s}",
    "Bearer PT_{i}_{s}",
    "Bearer pt-{i}-{s}",
    "Bearer pt_{s}_{i}",
    "Bearer pt_{i}_{s}0",
    "Bearer pt_{i}_0{s}",
    "Bearer pt_{i}_{s}_{s}",
    "Bearer pt_0_{s}",
    "Bearer pt_00000000000000000000000000_{s}",
    "Bearer pt_zzzzzzzzzzzzzzzzzzzzzzzzzz_{s}",
    "Bearer pt_{i}_0000000000000000000000000000000000000000000000000000000000000000",
    "Bearer pt_{i}_ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "Bearer pt_{i}_' OR '1'='1",
    "Bearer pt_{i}_%00",
    "Bearer pt_{i}_..%2f",
    "Bearer {t},{t}",
    "Bearer {t} {t}",
    "Bearer {t};admin",
    "Bearer \"{t}\"",
    "Bearer <{t}>",
    "Bearer=\"{t}\"",
    "Bearer:{t}",
    "Bearer\u{a0}{t}",
    "Bearer {t}\u{a0}",
    "Bearer {t}\u{200b}",
    "Bearer ｐｔ_{i}_{s}",
    "Basic {t}",
    "Basic YWRtaW46YWRtaW4=",
    "Digest username=\"admin\"",
    "Negotiate {t}",
    "Token {t}",
    "token={t}",
    "Bearer null",
    "Bearer undefined",
    "Bearer eyJhbGciOiJub25lIn0.e30.",
    "{t} Bearer",
    "BearerBearer {t}",
];

#[test]
fn nothing_but_a_token_is_a_token() {
    let server = Server::start();
    let token = server.api().token.clone().expect("dev makes a token");
    let (id, secret) = token[3..].split_once('_').expect("pt_id_secret");
    let nobody = server.api().with_token(None);
    let mut trial = Trial::new(&server);
    let mut refused = |api: &Api, headers: &[(&str, &str)], status: u16, says: &str| {
        trial.asked(
            api,
            "POST",
            "/api/v1/jobs",
            headers,
            b"{\"job\": \"a\", \"command\": [\"x\"]}",
            status,
            says,
        );
    };
    for text in HEADERS {
        let value = text
            .replace("{t}", &token)
            .replace("{i}", id)
            .replace("{s}", secret);
        refused(&nobody, &[("authorization", &value)], 401, "oken");
    }
    let good = format!("Bearer {token}");
    let upper = format!("Bearer pt_{id}_{}", secret.to_uppercase());
    let long = format!("Bearer {}", "a".repeat(20_000));
    let halves: Vec<String> = (1..8)
        .map(|n| format!("Bearer {}", &token[..token.len() * n / 8]))
        .collect();
    for value in halves.iter().chain([&upper, &long]) {
        refused(&nobody, &[("authorization", value)], 401, "oken");
    }
    for headers in [
        [
            ("authorization", good.as_str()),
            ("authorization", good.as_str()),
        ],
        [
            ("authorization", good.as_str()),
            ("authorization", "Bearer x"),
        ],
        [
            ("authorization", "Bearer x"),
            ("authorization", good.as_str()),
        ],
    ] {
        refused(&nobody, &headers, 401, "oken");
    }
    for (name, value) in [
        ("x-authorization", good.as_str()),
        ("proxy-authorization", good.as_str()),
        ("cookie", token.as_str()),
        ("x-forwarded-user", "admin"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-url", "/health"),
        ("x-rewrite-url", "/health"),
        ("x-http-method-override", "GET"),
    ] {
        refused(&nobody, &[(name, value)], 401, "oken");
    }
    trial.end(65);
}

#[test]
fn a_token_that_is_gone_or_of_a_lesser_role_opens_nothing() {
    let server = Server::start();
    let made = |role: &str| {
        let body = json!({"name": role, "role": role});
        server
            .api()
            .post("/api/v1/tokens", &body)
            .expect(201)
            .json()
    };
    let gone = made("admin");
    let path = format!("/api/v1/tokens/{}", gone["id"].as_str().expect("an id"));
    server.api().delete(&path).expect(204);
    let viewer = made("viewer");
    let submitter = made("submitter");
    let mut trial = Trial::new(&server);
    let as_ = |view: &serde_json::Value| server.api().with_token(view["token"].as_str());
    let (gone, viewer, submitter) = (as_(&gone), as_(&viewer), as_(&submitter));
    let token = b"{\"name\": \"x\", \"role\": \"admin\"}".as_slice();
    let image = b"{\"path\": \"/x.tar\"}".as_slice();
    for (api, method, path, body, status) in [
        (&gone, "GET", "/api/v1/jobs", b"".as_slice(), 401),
        (&gone, "POST", "/api/v1/tokens", token, 401),
        (&gone, "GET", "/api/v1/events", b"", 401),
        (&viewer, "POST", "/api/v1/jobs", b"{}", 403),
        (&viewer, "POST", "/api/v1/sweeps", b"{}", 403),
        (&viewer, "POST", "/api/v1/sandboxes", b"{}", 403),
        (&viewer, "POST", "/api/v1/tokens", token, 403),
        (&viewer, "GET", "/api/v1/tokens", b"", 403),
        (&viewer, "POST", "/api/v1/jobs/x/cancel", b"", 403),
        (
            &viewer,
            "GET",
            "/api/v1/sandboxes/x/files?path=/etc/passwd",
            b"",
            403,
        ),
        (
            &viewer,
            "PUT",
            "/api/v1/sandboxes/x/files?path=/x",
            b"x",
            403,
        ),
        (&submitter, "POST", "/api/v1/tokens", token, 403),
        (&submitter, "DELETE", "/api/v1/tokens/x", b"", 403),
        (&submitter, "POST", "/api/v1/images", image, 403),
        (&submitter, "POST", "/api/v1/nodes/x/cordon", b"", 403),
    ] {
        trial.asked(api, method, path, &[], body, status, "oken");
    }
    trial.end(15);
}
