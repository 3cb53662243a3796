//! The second demo service, which `orders` would call; reached through outbound connections only.

use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use super::demo::{Answer, typed};

/// Answers every path with the stock.
pub fn answer(request: Request<Incoming>) -> Answer {
    let stock = json!({"service": "inventory", "path": request.uri().path(), "in_stock": {"apples": 7, "pears": 3}});
    typed("application/json", Full::from(format!("{stock}\n")))
}
