//! The seven examples of the reference, as a reader types them.

/// A command line, a path, and a header unless it is the automatic one.
pub type Example = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
);

/// The examples of the reference, and a request for each.
///
/// It matches once the automatic header is known.
pub const EXAMPLES: [Example; 7] = [
    (
        "injector intercept orders --port 3000 --http-header=Personal-Intercept=126a72c7-be8b-4329-af64-768e207a184b",
        "/",
        Some(("personal-intercept", "126a72c7-be8b-4329-af64-768e207a184b")),
    ),
    (
        "injector intercept orders --port 3000 --http-path-prefix=/api --http-header=Coder=Bob",
        "/api",
        Some(("coder", "Bob")),
    ),
    (
        "injector intercept orders --port 3000 --http-path-equal=/api/version --http-header=auto",
        "/api/version",
        None,
    ),
    (
        "injector intercept orders --port 3000 --http-path-equal=/api/version",
        "/api/version",
        None,
    ),
    (
        "injector intercept orders --port 3000 --http-path-regex='/(staging-)?api/.*'",
        "/staging-api/x",
        None,
    ),
    (
        "injector intercept orders --port 3000 --http-path-regex='(staging-)?api/.*'",
        "/api/x",
        None,
    ),
    (
        "injector intercept orders --port 3000 --http-header=all",
        "/",
        Some(("any", "thing")),
    ),
];
